"""Renders facts into messages, with the templates of `prompts/`, as many as a model can read.

Inference and training data share one rendering (a test compares them), so nothing outside this
file may assemble a prompt. Templates are given `facts` (`creator.context.Facts`) and nothing else.
A user's words (background, help) reach them as values: Jinja never reads a value as a template.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from localhpo import assets
from localhpo.creator.context import DEFAULT_LIMIT, Facts, build_facts
from localhpo.creator.protocol import History
from localhpo.errors import ModelError
from localhpo.llm.protocol import Message, Model
from localhpo.space import Categorical, Ordinal, Parameter, Space
from localhpo.space.values import spell_value

if TYPE_CHECKING:
    import jinja2

    from localhpo.transfer import RetrievedConfig

Style = Literal["chat", "compact", "samples"]
"""`chat` for a model that follows instructions and gives a reason, `samples` for the same without a
reason, `compact` for a model that was trained on that very rendering."""

LIMITS: Mapping[Style, Sequence[int]] = {
    "chat": (DEFAULT_LIMIT, 24, 18, 12, 8, 5, 3, 2, 1, 0),
    "compact": (12, 8, 5, 3, 2, 1, 0),  # its template shows no more than twelve
    "samples": (12, 8, 5, 3, 2, 1, 0),
}
"""Numbers of finished trials to show; the first one whose prompt fits into the context is taken."""

_ANALYSIS_TOKENS = 700
"""Tokens for 600 characters of analysis, one each, and for keys and evidence. Words take fewer; an
answer that takes more (600 rare characters) is cut off, and drawn again."""


def fit_prompt(
    history: History,
    model: Model,
    count_tokens: Callable[[Sequence[Message]], int],
    retrieved: Sequence[RetrievedConfig] = (),
    style: Style | None = None,
) -> tuple[Sequence[Message], tuple[int, ...], int]:
    """Return the prompt with as much history as fits into a model's context.

    Also the numbers of the trials in it, and the tokens left for an answer. For inference and
    training. The style is that of the model by default.

    Raises:
        ModelError: not even the prompt without history fits.
    """
    style = style or model.prompt
    answer_tokens = max_answer_tokens(history.task.space) + (
        _ANALYSIS_TOKENS if style == "chat" else 0
    )
    tokens = 0
    for limit in LIMITS[style]:
        facts = build_facts(history, limit=limit, retrieved=retrieved)
        messages = render_messages(facts, style)
        tokens = count_tokens(messages)
        if tokens + answer_tokens <= model.context_length:
            return messages, tuple(sorted(trial.number for trial in facts.trials)), answer_tokens
    raise ModelError(
        f"{model.name} has a context of {model.context_length} tokens; the prompt without any "
        f"trial takes {tokens} and the answer up to {answer_tokens}",
        hint="shorten the background, or choose a model with a longer context",
    )


def max_answer_tokens(space: Space) -> int:
    """Return an upper bound on the tokens of a configuration's text: one for each byte.

    A tokenizer that does not know a script encodes it byte by byte.
    """
    return 16 + sum(len(spell_value(p.name).encode()) + 2 + _longest(p) for p in space.parameters)


def _longest(parameter: Parameter) -> int:
    """Return an upper bound on the bytes of a value."""
    if isinstance(parameter, Categorical | Ordinal):
        return max(len(parameter.text(value).encode()) for value in parameter.values)
    bounds = (parameter.text(parameter.low), parameter.text(parameter.high))
    return max(16, 3 + max(map(len, bounds)))  # a thousandth of the range: three more digits


def render_messages(facts: Facts, style: Style) -> list[Message]:
    """Return the conversation that asks for the next configuration.

    Args:
        facts: everything that the prompt may say.
        style: which templates are used.
    """
    if style == "compact":
        return [Message("user", _render("compact.txt.j2", facts))]
    if style == "samples":
        return [
            Message("system", _render("samples_system.md.j2", facts)),
            Message("user", _render("samples.md.j2", facts)),
        ]
    return [
        Message("system", _render("system.md.j2", facts)),
        Message("user", _render("propose.md.j2", facts)),
    ]


def join_messages(conversation: Sequence[Message]) -> str:
    """Return a conversation as one text, for the record."""
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in conversation)


def sha256(conversation: Sequence[Message]) -> str:
    """Return the hash of a conversation's text."""
    return hashlib.sha256(join_messages(conversation).encode()).hexdigest()


def _render(template: str, facts: Facts) -> str:
    return _environment().get_template(template).render(facts=facts)


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the one environment of all templates; loaded templates are kept."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(assets.folder("prompts")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # plain text for a model, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
    )
