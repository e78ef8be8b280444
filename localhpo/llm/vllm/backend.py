"""The backend that asks a managed server of vLLM.

Prompts go to it as tokens, which it has made itself from the messages: the same ones as the
in-process backend reads, whatever the model's template. It ends on its own at the grammar's end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from localhpo.errors import BackendError, ConstraintError
from localhpo.llm import probe
from localhpo.llm.escaping import control_token_escaper
from localhpo.llm.folder import description
from localhpo.llm.http_client import HttpError, UnreachableError
from localhpo.llm.placement import ModelPlacer
from localhpo.llm.protocol import Completion, Constraint, Message, Model
from localhpo.llm.replies import RequestInfo, parse_completions
from localhpo.llm.vllm import adapters
from localhpo.llm.vllm.server import ManagedServer

RESTARTS = 3
"""Of a server that crashes, for one backend: more would only hide that it does."""
ENDING_S = 60.0
"""For a server whose engine is dead to end: it clears up first, for long on a busy machine."""

T = TypeVar("T")
_FORM = probe.FORMS[0]  # structured_outputs.grammar


class VllmBackend:
    """Serves a model folder from a process of its own, which many can ask at once.

    Attributes:
        server: What it asks; to be put to sleep and woken by whoever shares the device out.
    """

    def __init__(
        self, server: ManagedServer, *, owned: bool = True, placer: ModelPlacer | None = None
    ) -> None:
        """Start the server where it does not run, and see that it holds constraints.

        Args:
            server: Of the model.
            owned: Whether `close` lets go of it: it ends then, unless others use it.
            placer: RequestInfo for memory before the first start; a restart does not ask again.

        Raises:
            BackendError: it does not start.
            ConstraintError: it ignores constraints: another version of vLLM might.
        """
        self.server = server
        self._owned = owned
        self._closed = False
        self._restarts = 0
        self._adapter: adapters.Adapter | None = None
        self._loaded_in: int | None = None
        """The process that has the adapter; who shares the device out may start another."""
        self._tokens: tuple[Sequence[Message], list[int]] | None = None
        self._as_data = control_token_escaper(description.control_tokens(server.folder))
        self._chats = description.has_chat_template(server.folder)
        server.start(placer)
        try:
            self._check_constraints()
        except BaseException:
            self.close()
            raise

    @property
    def model(self) -> Model:
        """What is served; with an adapter, the digest is of both."""
        model = self.server.model
        if self._adapter is None:
            return model
        knows = model.knows | self._adapter.knows
        return replace(model, digest=f"{model.digest}+{self._adapter.digest}", knows=knows)

    @property
    def on_device(self) -> None:
        """The model is in the server's process, not in this one."""
        return None

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens of the rendered prompt."""
        return len(self._live(lambda: self._render(messages)))

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
        """Return `n` completions of the prompt; the server reads the prompt once for all.

        A server that has crashed is started again, and asked once more.
        """
        fields = {
            "n": n,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            **_FORM.fields(constraint),
        }
        return self._live(lambda: self._ask(messages, fields))

    def use_adapter(self, folder: Path | None) -> None:
        """Answer with a LoRA adapter from now on; None: with the model alone.

        Each version is loaded under a name of its own, while the server runs and answers others.

        Raises:
            CardError: it is no adapter that this server can load.
            BackendError: the server takes none (see `Settings.adapter_rank`), or refuses it.
        """
        rank = self.server.settings.adapter_rank
        if folder is not None and not rank:
            raise BackendError(
                "this server takes no adapters", hint="start it with Settings(adapter_rank=16)"
            )
        self._open()
        before, self._adapter = self._adapter, None
        if folder is not None:
            adapter = adapters.shelve(folder, self.server.shelf, max_rank=rank)
            self._live(lambda: self._load(adapter))
            self._adapter = adapter
        if before is not None and before != self._adapter and not self.server.shared:
            self._live(lambda: self._unload(before))

    def close(self) -> None:
        """Let go of the server, where it is this backend's to do so."""
        if self._closed:
            return
        self._closed = True
        if self._owned:
            self.server.stop()

    def _live(self, ask: Callable[[], T]) -> T:
        """Ask; where the server has ended, start it again and ask once more."""
        self._open()
        try:
            return ask()
        except (UnreachableError, HttpError) as exc:
            blames_us = isinstance(exc, HttpError) and exc.status < 500
            if blames_us or not self.server.has_failed(ENDING_S):
                raise
            self._restart(exc)
        return ask()

    def _open(self) -> None:
        if self._closed:
            raise BackendError("the backend is closed")

    def _restart(self, error: BackendError) -> None:
        why = self.server.why_ended()
        if self._restarts == RESTARTS:
            raise BackendError(
                f"the model's server has ended {RESTARTS + 1} times, at last because: {why}"
            ) from error
        self._restarts += 1
        self.server.start()

    def _ask(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> list[Completion]:
        if self.server.sleeping:
            raise BackendError("the model's server sleeps", hint="wake it first")
        started = time.perf_counter()
        prompt = self._render(messages)
        self._check_room(len(prompt), fields["max_tokens"])
        if self._adapter is not None and self._loaded_in != self.server.pid:
            self._load(self._adapter)
        body = {"model": self._name, "prompt": prompt, "return_token_ids": True, **fields}
        try:
            reply = self.server.http.post("completions", body)
        except HttpError as exc:
            if exc.status >= 500:
                raise
            raise ConstraintError(f"the server does not take the constraint: {exc}") from exc
        # vLLM draws the answer of index i with the seed of the request plus i.
        asked = RequestInfo(len(prompt), fields["max_tokens"], fields["seed"], seed_step=1)
        return parse_completions(reply, asked, time.perf_counter() - started)

    @property
    def _name(self) -> str:
        return self._adapter.name if self._adapter else self.server.name

    def _render(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of the prompt, as the in-process backend makes them."""
        key = tuple(messages)
        if self._tokens is None or self._tokens[0] != key:
            tokens = self._tokenize(self._to_render(messages))
            if self._chats and (prefix := self.server.model.answer_prefix):
                tokens += self._tokenize({"prompt": prefix, "add_special_tokens": False})
            self._tokens = key, tokens
        return self._tokens[1]

    def _to_render(self, messages: Sequence[Message]) -> dict[str, Any]:
        contents = [self._as_data(message.content) for message in messages]
        if not self._chats:
            return {"prompt": "\n\n".join(contents)}
        return {
            "messages": [
                {"role": message.role, "content": content}
                for message, content in zip(messages, contents, strict=True)
            ],
            "add_generation_prompt": True,
            "chat_template_kwargs": dict(self.server.model.chat_template_kwargs),
        }

    def _tokenize(self, what: Mapping[str, Any]) -> list[int]:
        reply = self.server.http.post("/tokenize", {"model": self.server.name, **what})
        return list(reply["tokens"])

    def _check_room(self, prompt_tokens: int, max_tokens: int) -> None:
        if not prompt_tokens:
            raise BackendError("the prompt is empty")
        model = self.server.model
        if prompt_tokens + max_tokens > model.context_length:
            raise BackendError(
                f"{prompt_tokens} tokens of prompt and {max_tokens} of answer do not fit the"
                f" context of model {model.name} as it is served: {model.context_length} tokens",
                hint="shorten the prompt, or serve it with more: Settings(context_tokens=...)",
            )

    def _check_constraints(self) -> None:
        def ask(message: Message, fields: Mapping[str, Any], max_tokens: int) -> str:
            bounds = {"n": 1, "max_tokens": max_tokens, "temperature": 1.0, "seed": 0}
            return self._ask([message], {**bounds, **fields})[0].text

        if failure := probe.failure(_FORM, ask):
            raise ConstraintError(
                f"this vLLM does not hold answers to a grammar: {failure}",
                hint="LocalHPO is checked with vllm 0.32",
            )

    def _load(self, adapter: adapters.Adapter) -> None:
        pid = self.server.pid
        if not self._has_loaded(adapter):
            body = {"lora_name": adapter.name, "lora_path": str(adapter.folder)}
            self.server.http.tell("load_lora_adapter", body)
        self._loaded_in = pid

    def _unload(self, adapter: adapters.Adapter) -> None:
        if self._has_loaded(adapter):
            self.server.http.tell("unload_lora_adapter", {"lora_name": adapter.name})

    def _has_loaded(self, adapter: adapters.Adapter) -> bool:
        return adapter.name in [entry["id"] for entry in self.server.http.models()]
