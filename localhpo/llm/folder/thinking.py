"""How to keep a model from thinking aloud before it answers.

Proposals are written under a grammar from their first token on, so that nothing else can come out;
but a model that was prompted to think, and must answer at once, is out of its depth. Most chat
templates have a switch. Where what a template renders still ends with an open thought, or before
the place where thoughts go, the answer gets a prefix that leads past it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Value = str | bool


@dataclass(frozen=True, slots=True)
class ThinkingSwitch:
    """What keeps a model from thinking, or holds it to little."""

    chat_template_kwargs: Mapping[str, Value] = field(default_factory=dict)
    """What its chat template is told beside the messages."""
    answer_prefix: str = ""
    """What follows the rendered prompt, before the answer."""


UNKNOWN: Mapping[str, Value] = {"enable_thinking": False}
"""For a template that is not at hand: the commonest switch, which other templates ignore."""

_HARMONY_TURN = "<|start|>assistant"
_HARMONY_ANSWER = "<|channel|>final<|message|>"
"""Where an answer of gpt-oss begins, its analysis left out (https://github.com/openai/harmony)."""

_MESSAGES = ({"role": "system", "content": "You tune."}, {"role": "user", "content": "Propose."})


def find_switch(template: str) -> ThinkingSwitch:
    """Return the switch of a chat template, in Jinja; empty where there is nothing to switch."""
    kwargs: dict[str, Value] = {}
    if re.search(r"\benable_thinking\b", template):
        kwargs["enable_thinking"] = False
    if re.search(r"\breasoning_effort\b", template):
        # "none" is a word of Mistral's templates; gpt-oss knows low, medium and high.
        knows_none = re.search(r"reasoning_effort[^%}]*['\"]none['\"]", template)
        kwargs["reasoning_effort"] = "none" if knows_none else "low"
    return ThinkingSwitch(kwargs, _prefix(_rendered(template, kwargs)))


def read_chat_template(folder: Path) -> str:
    """Return the chat template of a model folder; empty where it has none (a base model)."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    try:
        said = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = said.get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _prefix(rendered: str) -> str:
    if rendered.endswith(_HARMONY_TURN):
        return _HARMONY_ANSWER
    if rendered.rstrip().endswith("<think>"):
        # As Qwen's templates spell a thought that is not to take place.
        return ("" if rendered.endswith("\n") else "\n") + "\n</think>\n\n"
    return ""


def _rendered(template: str, kwargs: Mapping[str, Value]) -> str:
    """Return a prompt as transformers would render it; empty where that fails."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # A template comes with a model, from anywhere: it gets what transformers would give it.
    jinja = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    jinja.globals |= {"raise_exception": _refuse, "strftime_now": _date}
    given: dict[str, Any] = {"bos_token": "", "eos_token": "", "tools": None, **kwargs}
    for messages in (_MESSAGES, _MESSAGES[1:]):  # some know no system message
        try:
            return jinja.from_string(template).render(
                messages=messages, add_generation_prompt=True, **given
            )
        except (TemplateError, TypeError, ValueError, LookupError):
            continue
    return ""


def _refuse(message: str) -> str:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _date(form: str) -> str:
    return form  # the day does not matter here
