"""Backend for a server that the user runs and that has OpenAI's chat completions interface.

vLLM, llama.cpp, Ollama, LM Studio and SGLang have it. They treat constraints differently, some
ignore them silently: `probe` tests this, and a server that ignores them is refused.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from localhpo.errors import BackendError, InputError
from localhpo.llm import tokens
from localhpo.llm.models import profiles, thinking
from localhpo.llm.models import registry as model_registry
from localhpo.llm.protocol import Completion, GenerationRequest, Message, Model, derive_seeds
from localhpo.llm.servers import probe
from localhpo.llm.servers.http_client import HttpError, ServerClient
from localhpo.llm.servers.replies import RequestInfo, parse_completions, sampling_fields

ASSUMED_CONTEXT = 4096
"""Context length if the server does not report it: the default of Ollama and LM Studio."""


def open_openai(model: str | None, url: str | None, allow_remote: Collection[str]) -> OpenAIBackend:
    """Return the backend of a server; options and errors as `open_backend` has them."""
    if url is None:
        raise InputError(
            "backend openai needs the url of a running server",
            hint="for instance http://127.0.0.1:8000/v1 (vLLM), or port 8080 for llama.cpp,"
            " 11434 for Ollama, 1234 for LM Studio, 30000 for SGLang",
        )
    return OpenAIBackend(url, model=model, allow_remote=allow_remote)


class OpenAIBackend:
    """Generates by a running server.

    Attributes:
        form: How constraints are sent. A form that is not exact sends the JSON Schema: the caller
            must then put values into their canonical spelling.
    """

    server = None  # the user runs it, not LocalHPO
    on_device = None

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        allow_remote: Collection[str] = (),
        timeout_s: float = 300.0,
    ) -> None:
        """Connect, choose a model, and test how its answers can be constrained.

        Args:
            url: Address of the server, such as http://127.0.0.1:8000/v1.
            model: Name of a model of the server; needed where it serves several.
            allow_remote: Hosts other than this machine that may be contacted.
            timeout_s: Timeout of a request, in seconds.

        Raises:
            InputError: the url is invalid, or the model is not served.
            ConstraintError: the server ignores constraints.
            BackendError: the server does not answer.
        """
        self._closed = False
        self._takes_n = True
        self._server = ServerClient(url, allow_remote=allow_remote, timeout_s=timeout_s)
        try:
            served = _choose(self._server, model)
            self.model = Model(
                name=served["id"],
                digest=served["id"],
                context_length=_context_length(self._server, served),
                deterministic=False,  # batching changes rounding, and some servers ignore the seed
            )
            self._thinking_fields: Mapping[str, Any] = {}
            self._thinking_fields = probe.filter_accepted(
                self._request_probe, _find_thinking_fields(served["id"])
            )
            self.form = probe.find_strictest_form(self._request_probe, self._server.url)
        except BaseException:
            self._server.close()
            raise

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return an upper estimate of the tokens of the prompt; the server has the tokenizer."""
        return tokens.estimate_prompt_tokens(messages)

    def generate(self, request: GenerationRequest) -> list[Completion]:
        """Return completions. The seed of each is that of the server's request for it."""
        if self._closed:
            raise BackendError("the backend is closed")
        fields = {**sampling_fields(request), **self.form.fields(request.constraint)}
        one = {**fields, "n": 1}
        if request.n > 1 and self._takes_n:
            try:
                answers = self._request(request.messages, fields)
            except HttpError:
                answers = self._request(request.messages, one)
            self._takes_n = len(answers) >= request.n
        else:
            answers = self._request(request.messages, one)
        # Many servers return one answer per request, whatever `n` is.
        for its_seed in derive_seeds(request.seed, request.n)[len(answers) :]:
            answers += self._request(request.messages, {**one, "seed": its_seed})
        return answers[: request.n]

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._server.close()

    def _request(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> list[Completion]:
        started = time.perf_counter()
        body = {
            "model": self.model.name,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            **self._thinking_fields,
            **fields,
        }
        reply = self._server.post("chat/completions", body)
        estimate = tokens.estimate_prompt_tokens(messages)
        info = RequestInfo(estimate, fields["max_tokens"], fields["seed"])
        return parse_completions(reply, info, time.perf_counter() - started)

    def _request_probe(self, message: Message, fields: Mapping[str, Any]) -> str:
        return self._request([message], fields)[0].text


def _find_thinking_fields(name: str) -> Mapping[str, Any]:
    """Return the request fields that switch off the reasoning of a model.

    vLLM, SGLang and llama.cpp pass `chat_template_kwargs` on to the template; vLLM reads the
    reasoning effort of gpt-oss from a separate field, and Ollama that of every model.
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
    """Return the entry of the named model, or of the only one."""
    served = server.list_models()
    if name is None and len(served) == 1:
        return served[0]
    for entry in served:
        if entry["id"] == name:
            return entry
    listed = ", ".join(entry["id"] for entry in served)
    found = "several models" if name is None else f"no model {name!r}"
    raise InputError(
        f"the server at {server.url} serves {found}; it serves: {listed}",
        hint="name one of them as model",
    )


def _context_length(server: ServerClient, served: Mapping[str, Any]) -> int:
    """Return the context length that the server reports, else the default."""
    length = served.get("max_model_len")  # vLLM, SGLang
    if length is None and "meta" in served:  # llama.cpp; its n_ctx_train is not what it serves
        with suppress(HttpError, AttributeError):
            length = server.get("/props").get("default_generation_settings", {}).get("n_ctx")
    return length if isinstance(length, int) and length > 0 else ASSUMED_CONTEXT
