"""The model that trials run beside: how long it takes to open, to answer, to sleep and to wake."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from localhpo.llm import model_registry, probe
from localhpo.llm.protocol import Backend, Message
from localhpo.scheduler.placement import Gpu
from scripts.gpu_smoke.device import Bench
from scripts.gpu_smoke.verdict import SkippedError, must, near

if TYPE_CHECKING:
    from localhpo.llm.vllm import ManagedServer

KV_MB = 256
"""Of KV cache: more than so small a model needs."""
FREED_MB = 100.0
"""At the least by sleep, which gives it back."""
START_S = 240.0
"""For the server: with less the script could not keep its own bound."""


@dataclass(frozen=True, slots=True)
class Model:
    """The model that trials run beside."""

    backend: Backend
    server: ManagedServer | None
    """None where it runs in this process."""
    opened_s: float


def open_model(gpu: Gpu) -> Model:
    """Start the model's server, or load the model in this process where there is none."""
    begin = time.perf_counter()
    folder = model_registry.find_model(model_registry.DEFAULT)
    if has_vllm():
        from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend

        server = ManagedServer(folder, Settings(gpus=(gpu.id,), kv_cache_mb=KV_MB), start_s=START_S)
        if not server.on_cpu:
            backend = VllmBackend(server)
            return Model(backend, server, time.perf_counter() - begin)
    from localhpo.llm.transformers import TransformersBackend

    in_process = TransformersBackend(folder, device="cuda")
    return Model(in_process, None, time.perf_counter() - begin)


def has_vllm() -> bool:
    """Whether vLLM is installed, for whatever device."""
    return importlib.util.find_spec("vllm") is not None


def answers(model: Model) -> float:
    """Return the seconds that two answers took."""
    begin = time.perf_counter()
    message = Message("user", "Choose a side.")
    found = model.backend.generate([message], probe.CONSTRAINT, n=2, max_tokens=96)
    must(len(found) == 2, f"{len(found)} answers where 2 were asked for")
    return time.perf_counter() - begin


def sleeping(bench: Bench, model: Model) -> str:
    """How long sleep and waking take, by level, and what was freed."""
    server = model.server
    if server is None:
        raise SkippedError(
            "vLLM for GPUs is not installed here: the model runs in this process, where it cannot"
            f" sleep; loaded in {model.opened_s:.1f} s, two answers in {answers(model):.2f} s"
        )
    told = [f"started in {model.opened_s:.1f} s, two answers in {answers(model):.2f} s"]
    for level in (1, 2):
        awake_mb = bench.reading().used_mb
        sleep_s = _seconds(partial(server.sleep, level))
        freed_mb = awake_mb - bench.reading().used_mb
        wake_s = _seconds(server.wake)
        back_mb = bench.reading().used_mb
        sentence = (
            f"level {level} sleeps in {sleep_s:.2f} s, frees {freed_mb:.0f} MB,"
            f" wakes in {wake_s:.2f} s, answers in {answers(model):.2f} s"
        )
        must(freed_mb >= FREED_MB, sentence)
        near(f"{sentence}; used before and after", awake_mb, back_mb)
        told.append(sentence)
    return "; ".join(told)


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
