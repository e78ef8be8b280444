"""Renders facts into messages, with the templates of `prompts/`.

Inference and training data share one rendering (a test compares them), so nothing outside this
file may assemble a prompt. Templates are given `facts` (`creator.facts.Facts`) and nothing else.
A user's words (background, help) reach them as values: Jinja never reads a value as a template.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from localhpo import assets
from localhpo.creator.context import Facts
from localhpo.llm.protocol import Message

if TYPE_CHECKING:
    import jinja2

Style = Literal["chat", "compact"]


def render_messages(facts: Facts, style: Style) -> list[Message]:
    """Return the conversation that asks for the next configuration.

    Args:
        facts: everything that the prompt may say.
        style: `chat` for a model that follows instructions, `compact` for a model that was
            trained on that very rendering.
    """
    if style == "compact":
        return [Message("user", _render("compact.txt.j2", facts))]
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
