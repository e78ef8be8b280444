"""Registry of backends: opens one by name.

A backend is one entry of `BACKENDS`, or an entry point of the group `localhpo.backends`. Its
factory returns a `Backend` (see `localhpo.llm.protocol`), which the caller closes. It may take
these options, by keyword; one that it does not take is refused where it is given:

    model: name or folder of a model, or what a server calls it; None for the default.
    model_gpus: number of GPUs to split the model over; None for the default.
    url: address of a server.
    allow_remote: hosts other than this machine that may be contacted.
    device: device as torch names it; None for the default, "cpu" for host memory.
    threads: number of CPU threads for the model.
    placer: is asked for memory before the model is loaded.
    script: answers, or a function that returns them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from localhpo.errors import InputError
from localhpo.llm.protocol import Backend
from localhpo.plugins import Registry

if TYPE_CHECKING:
    from localhpo.llm.placement import ModelPlacer
    from localhpo.llm.scripted import Script

BACKENDS: Registry[Backend] = Registry(
    "backend",
    {
        "transformers": "localhpo.llm.transformers:open_transformers",
        "vllm": "localhpo.llm.vllm:open_vllm",
        "openai": "localhpo.llm.servers.openai:open_openai",
        "scripted": "localhpo.llm.scripted:open_scripted",
    },
    options=(
        "model", "model_gpus", "url", "allow_remote", "device", "threads", "placer", "script",
    ),
)  # fmt: skip


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
        name: One of `BACKENDS.names`.
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
        PluginError: it is that of a plug-in which cannot be imported.
        MissingExtraError: it needs a package that is not installed.
        ModelError: the model or the server cannot be used.
    """
    given: Mapping[str, object] = {
        "model": model, "model_gpus": model_gpus, "url": url, "allow_remote": allow_remote,
        "script": script, "device": device,
    }  # fmt: skip
    for option, value in given.items():
        if value and not BACKENDS.takes(name, option):
            owners = " or ".join(BACKENDS.takers(option))
            raise InputError(
                f"backend {name} takes no {option}, got {value!r}",
                hint=f"leave {option} out, or choose backend {owners}",
            )
    return BACKENDS.make(name, **given, threads=threads, placer=placer)
