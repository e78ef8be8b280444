"""The model beside the trials: how long it takes to open, answer, sleep and wake up."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from localhpo.llm.models import registry as model_registry
from localhpo.llm.protocol import Backend, GenerationRequest, Message
from localhpo.llm.servers import probe
from localhpo.resources.placement import Gpu
from scripts.gpu_smoke.device import Bench
from scripts.gpu_smoke.verdict import SkippedError, require, require_near

if TYPE_CHECKING:
    from localhpo.llm.vllm import ManagedServer

KV_MB = 256
"""Size of the KV cache: more than the small model needs."""
FREED_MB = 100.0
"""Memory that sleep must free, at least."""
START_S = 240.0
"""Time limit for the start of the server, within the ten minutes of the script."""


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """The model beside the trials."""

    backend: Backend
    server: ManagedServer | None
    """None where it runs in this process."""
    opened_s: float


def open_model(gpu: Gpu) -> OpenedModel:
    """Start a vLLM server, or load the model in this process where vLLM is not installed."""
    begin = time.perf_counter()
    folder = model_registry.find_model(model_registry.DEFAULT)
    if has_vllm():
        from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend

        server = ManagedServer(folder, Settings(gpus=(gpu.id,), kv_cache_mb=KV_MB), start_s=START_S)
        if not server.on_cpu:
            backend = VllmBackend(server)
            return OpenedModel(backend, server, time.perf_counter() - begin)
    from localhpo.llm.transformers import TransformersBackend

    in_process = TransformersBackend(folder, device="cuda")
    return OpenedModel(in_process, None, time.perf_counter() - begin)


def has_vllm() -> bool:
    """Return whether vLLM is installed, for any device."""
    return importlib.util.find_spec("vllm") is not None


def time_answers(model: OpenedModel) -> float:
    """Return the time of two answers in seconds."""
    begin = time.perf_counter()
    message = Message("user", "Choose a side.")
    found = model.backend.generate(
        GenerationRequest([message], probe.CONSTRAINT, n=2, max_tokens=96)
    )
    require(len(found) == 2, f"{len(found)} answers instead of 2")
    return time.perf_counter() - begin


def check_sleep(bench: Bench, model: OpenedModel) -> str:
    """Measure how long sleep and waking up take, by level, and the memory freed."""
    server = model.server
    if server is None:
        raise SkippedError(
            "vLLM for GPUs is not installed here: the model runs in this process, where it cannot"
            f" sleep; loaded in {model.opened_s:.1f} s, two answers in {time_answers(model):.2f} s"
        )
    sentences = [f"started in {model.opened_s:.1f} s, two answers in {time_answers(model):.2f} s"]
    for level in (1, 2):
        awake_mb = bench.reading().used_mb
        sleep_s = _time(partial(server.sleep, level))
        freed_mb = awake_mb - bench.reading().used_mb
        wake_s = _time(server.wake)
        back_mb = bench.reading().used_mb
        sentence = (
            f"level {level} sleeps in {sleep_s:.2f} s, frees {freed_mb:.0f} MB,"
            f" wakes in {wake_s:.2f} s, answers in {time_answers(model):.2f} s"
        )
        require(freed_mb >= FREED_MB, sentence)
        require_near(f"{sentence}; memory in use before and after", awake_mb, back_mb)
        sentences.append(sentence)
    return "; ".join(sentences)


def _time(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
