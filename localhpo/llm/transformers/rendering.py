"""Renders messages into the tokens of a prompt, for inference and training alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localhpo.errors import BackendError
from localhpo.llm.protocol import Message, Model
from localhpo.llm.tokens import control_token_escaper

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class PromptRenderer:
    """Renders prompts for one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, model: Model) -> None:
        """Take the tokenizer and the description of the model."""
        self.tokenizer = tokenizer
        self._model = model
        self._escape = control_token_escaper(_control_tokens(tokenizer))

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of the prompt, by the chat template if the tokenizer has one.

        Raises:
            BackendError: the chat template refuses the messages.
        """
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            text = "\n\n".join(self._escape(message.content) for message in messages)
            return list(self.tokenizer(text, verbose=False)["input_ids"])
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": m.role, "content": self._escape(m.content)} for m in messages],
                tokenize=False,
                add_generation_prompt=True,
                **self._model.chat_template_kwargs,
            )
        except TemplateError as exc:
            raise BackendError(
                f"the chat template of model {self._model.name} refuses the messages: {exc}"
            ) from exc
        text += self._model.answer_prefix
        tokens = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return list(tokens["input_ids"])


def _control_tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
