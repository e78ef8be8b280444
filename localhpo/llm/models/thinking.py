"""Switches off the reasoning of a model before its answer.

A proposal is constrained by a grammar from its first token on; a model that is prompted to reason
first, but must answer at once, answers badly. Most chat templates have a switch. If the rendered
prompt still opens a reasoning block, or ends before one, a prefix of the answer skips it.
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
    """Settings that switch the reasoning of a model off, or limit it."""

    chat_template_kwargs: Mapping[str, Value] = field(default_factory=dict)
    """Arguments of its chat template."""
    answer_prefix: str = ""
    """Text between the rendered prompt and the answer."""


UNKNOWN: Mapping[str, Value] = {"enable_thinking": False}
"""For an unknown template: the most common switch, which other templates ignore."""

_HARMONY_TURN = "<|start|>assistant"
_HARMONY_ANSWER = "<|channel|>final<|message|>"
"""Start of an answer of gpt-oss without analysis (https://github.com/openai/harmony)."""

_MESSAGES = ({"role": "system", "content": "You tune."}, {"role": "user", "content": "Propose."})


def find_switch(template: str) -> ThinkingSwitch:
    """Return the settings for a chat template in Jinja; empty if it has no switch."""
    kwargs: dict[str, Value] = {}
    if re.search(r"\benable_thinking\b", template):
        kwargs["enable_thinking"] = False
    if re.search(r"\breasoning_effort\b", template):
        # Mistral's templates have "none"; gpt-oss has low, medium and high.
        has_none = re.search(r"reasoning_effort[^%}]*['\"]none['\"]", template)
        kwargs["reasoning_effort"] = "none" if has_none else "low"
    return ThinkingSwitch(kwargs, _prefix(_rendered(template, kwargs)))


def read_chat_template(folder: Path) -> str:
    """Return the chat template of a model folder; empty if it has none (a base model)."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    try:
        table = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = table.get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    if isinstance(template, list):  # several templates, by name
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _prefix(rendered: str) -> str:
    if rendered.endswith(_HARMONY_TURN):
        return _HARMONY_ANSWER
    if rendered.rstrip().endswith("<think>"):
        # As Qwen's templates close an empty reasoning block.
        return ("" if rendered.endswith("\n") else "\n") + "\n</think>\n\n"
    return ""


def _rendered(template: str, kwargs: Mapping[str, Value]) -> str:
    """Return a prompt as transformers would render it; empty if that fails."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # A template is untrusted: it runs in a sandbox, with the variables that transformers sets.
    jinja = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    jinja.globals |= {"raise_exception": _refuse, "strftime_now": _date}
    given: dict[str, Any] = {"bos_token": "", "eos_token": "", "tools": None, **kwargs}
    for messages in (_MESSAGES, _MESSAGES[1:]):  # some templates refuse system messages
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
    return form  # the date does not matter here
