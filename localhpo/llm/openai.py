"""A server that the user runs on this machine and that speaks OpenAI's chat completions.

vLLM, llama.cpp, Ollama, LM Studio and SGLang do. What they do with a constraint differs, down to
ignoring it in silence: `probe` finds out, and a server that does not hold it is not used.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from localhpo.errors import BackendError, InputError
from localhpo.llm import model_registry, probe, profiles, seeds, tokens
from localhpo.llm.folder import thinking
from localhpo.llm.http_client import HttpError, ServerClient
from localhpo.llm.protocol import Completion, Constraint, Message, Model
from localhpo.llm.replies import RequestInfo, parse_completions

ASSUMED_CONTEXT = 4096
"""Of a server that does not tell: the default of Ollama and LM Studio."""


class OpenAIBackend:
    """Asks a server. A schema in place of the grammar (see `form`) leaves spelling to the caller.

    Attributes:
        form: How constraints are sent, as the probe found.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        allow_remote: Collection[str] = (),
        timeout_s: float = 300.0,
    ) -> None:
        """Connect, choose a model, and find out how its answers can be constrained.

        Args:
            url: Where the server listens, such as http://127.0.0.1:8000/v1.
            model: One of those that it serves; not needed where it serves one.
            allow_remote: Hosts other than this machine that may be asked.
            timeout_s: Of one request.

        Raises:
            InputError: the url cannot be used, or the model is not served.
            ConstraintError: the server ignores constraints.
            BackendError: it does not answer.
        """
        self._closed = False
        self._together = True
        self._server = ServerClient(url, allow_remote=allow_remote, timeout_s=timeout_s)
        try:
            served = _choose(self._server, model)
            self._model = Model(
                name=served["id"],
                digest=served["id"],
                context_length=_context_length(self._server, served),
                deterministic=False,  # batching changes rounding, and some ignore the seed
            )
            self._switch: Mapping[str, Any] = {}
            self._switch = probe.accepted(self._ask_probe, _switch_fields(served["id"]))
            self.form = probe.strongest_form(self._ask_probe, self._server.url)
        except BaseException:
            self._server.close()
            raise

    @property
    def model(self) -> Model:
        """What is served."""
        return self._model

    @property
    def server(self) -> None:
        """LocalHPO does not run the server: the user does."""
        return None

    @property
    def on_device(self) -> None:
        """The model is not in this process."""
        return None

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return an upper estimate of the tokens of the prompt: the tokenizer is not here."""
        return tokens.estimate_prompt_tokens(messages)

    def generate(
        self,
        messages: Sequence[Message],
        constraint: Constraint,
        *,
        n: int = 1,
        max_tokens: int = 1024,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Return `n` completions. The seed of each is that of the request it came with."""
        if self._closed:
            raise BackendError("the backend is closed")
        fields = {**self._switch, **self.form.fields(constraint)}
        request = _Request(messages, fields, max_tokens, temperature)
        if n > 1 and self._together:
            answers = self._ask_together(request, n, seed)
        else:
            answers = self._ask(request, 1, seed)
        # Many servers give one answer to a request, whatever is asked.
        for its_seed in seeds.derive_seeds(seed, n)[len(answers) :]:
            answers += self._ask(request, 1, its_seed)
        return answers[:n]

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._server.close()

    def _ask_together(self, request: _Request, n: int, seed: int) -> list[Completion]:
        """Ask for `n` answers at once; where that fails, for one, and so from now on."""
        try:
            answers = self._ask(request, n, seed)
        except HttpError:
            answers = self._ask(request, 1, seed)
        self._together = len(answers) >= n
        return answers

    def _ask(self, request: _Request, n: int, seed: int) -> list[Completion]:
        started = time.perf_counter()
        reply = self._server.post("chat/completions", request.body(self._model.name, n, seed))
        asked = RequestInfo(
            tokens.estimate_prompt_tokens(request.messages), request.max_tokens, seed
        )
        return parse_completions(reply, asked, time.perf_counter() - started)

    def _ask_probe(self, message: Message, fields: Mapping[str, Any], max_tokens: int) -> str:
        request = _Request([message], {**self._switch, **fields}, max_tokens, 1.0)
        return self._ask(request, 1, 0)[0].text


@dataclass(frozen=True, slots=True)
class _Request:
    messages: Sequence[Message]
    fields: Mapping[str, Any]
    max_tokens: int
    temperature: float

    def body(self, model: str, n: int, seed: int) -> dict[str, Any]:
        return {
            "model": model,
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            "n": n,
            "seed": seed,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **self.fields,
        }


def _switch_fields(name: str) -> Mapping[str, Any]:
    """Return what keeps a model of that name from thinking, as servers take it.

    vLLM, SGLang and llama.cpp pass `chat_template_kwargs` on to the template; vLLM reads the effort
    of gpt-oss from a field of its own, and Ollama that of every model.
    """
    known = profiles.find_profile(name)
    kwargs = dict(known.chat_template_kwargs if known else thinking.UNKNOWN)
    for folder, card in model_registry.read_cards():
        if name in (card.name, folder.name, str(folder)):
            kwargs = dict(card.chat_template_kwargs)
    if not kwargs:
        return {}
    effort = {key: kwargs[key] for key in ("reasoning_effort",) if key in kwargs}
    return {"chat_template_kwargs": kwargs, **effort}


def _choose(server: ServerClient, name: str | None) -> Mapping[str, Any]:
    """Return what the server says of the model of that name, or of its only one."""
    served = server.models()
    if name is None and len(served) == 1:
        return served[0]
    for entry in served:
        if entry["id"] == name:
            return entry
    listed = ", ".join(entry["id"] for entry in served)
    wanted = "several models" if name is None else f"no model {name!r}"
    raise InputError(
        f"the server at {server.url} serves {wanted}; it serves: {listed}",
        hint="name one of them as model",
    )


def _context_length(server: ServerClient, served: Mapping[str, Any]) -> int:
    """Return how many tokens fit, where the server tells."""
    told = served.get("max_model_len")  # vLLM, SGLang
    if told is None and "meta" in served:  # llama.cpp; its n_ctx_train is not what it serves
        with suppress(HttpError, AttributeError):
            told = server.get("/props").get("default_generation_settings", {}).get("n_ctx")
    return told if isinstance(told, int) and told > 0 else ASSUMED_CONTEXT
