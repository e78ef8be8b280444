"""The numbers of the device: NVML's, torch's, the meter's and the ledger's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.executor.clock import RealClock
from localhpo.scheduler import devices, footprint, nvml
from localhpo.scheduler.meter import LOOK_S, Meter
from localhpo.scheduler.placement import Gpu
from scripts.gpu_smoke.verdict import FailedError, SkippedError, must, near

PROGRAMS = Path(__file__).parent / "programs"
TOTALS_AGREE = 0.03
"""The driver keeps a part of the device (1 % of an A100) that it does not tell CUDA of."""
CONTEXT_MB = 1536.0
"""Of CUDA in one process, at most."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the checks run on."""

    gpu: Gpu
    folder: Path
    """An empty one of its own."""

    def reading(self) -> nvml.Reading:
        """Return what NVML says of the device now."""
        found = [r for r in nvml.read_once() or [] if self.gpu.id == r.id]
        if not found or found[0].total_mb is None:
            raise FailedError(f"NVML knows no device {self.gpu.id}, or no memory of it")
        return found[0]


@contextlib.contextmanager
def holding(mb: float, **environment: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Run a process that holds memory for the block; give its number and what torch told it."""
    command = [sys.executable, str(PROGRAMS / "hold.py"), str(mb)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise FailedError(f"a process could not get {mb:.0f} MB by torch, as it says above")
        yield process.pid, json.loads(line)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def totals(bench: Bench) -> str:
    """NVML's total and free memory against torch's."""
    with holding(1.0) as (_, told):
        reading = bench.reading()
    total = near(
        f"{reading.name}, total by NVML and torch",
        reading.total_mb,
        told["total_mb"],
        TOTALS_AGREE * reading.total_mb,
    )
    free_mb = reading.total_mb - reading.used_mb
    return f"{total}; {near('free', free_mb, told['free_mb'], TOTALS_AGREE * reading.total_mb)}"


def growth(bench: Bench) -> str:
    """What NVML sees of a process that takes memory, and what is told of that process."""
    wanted_mb = bench.reading().total_mb / 8
    before_mb = bench.reading().used_mb
    with holding(wanted_mb) as (pid, _):
        reading, held_mb = bench.reading(), footprint.device_mb(pid, bench.gpu.id)
    grown_mb = reading.used_mb - before_mb
    grown = must(
        wanted_mb <= grown_mb + 1 and grown_mb <= wanted_mb + CONTEXT_MB,
        f"a process that holds {wanted_mb:.0f} MB made the used memory grow by {grown_mb:.0f} MB",
    )
    if held_mb is None or pid not in reading.processes:
        raise SkippedError(f"{grown}; the driver does not tell here which process holds how much")
    return f"{grown}; {near('growth, and held by process', grown_mb, held_mb)}"


def metered(bench: Bench) -> str:
    """The meter's peak of a trial against what the trial took."""
    wanted_mb = bench.reading().total_mb / 8
    folder = (bench.folder / "metered").resolve()
    meter = Meter(nvml.connect(), RealClock())
    with contextlib.closing(meter):
        meter.begin(folder, [bench.gpu.id])
        with holding(wanted_mb, LOCALHPO_TRIAL_DIR=str(folder)):
            for _ in range(3):
                time.sleep(LOOK_S)
                meter.look()
            use = meter.end(folder)
    sentence = f"a trial holds {wanted_mb:.0f} MB; its peak is measured as"
    if use.peak_mb is None:
        raise FailedError(f"{sentence} nothing")
    return must(
        wanted_mb <= use.peak_mb + 1 and use.peak_mb <= wanted_mb + CONTEXT_MB,
        f"{sentence} {use.peak_mb:.0f} MB",
    )


def ledger(bench: Bench) -> str:
    """What the inventory calls usable can be had, and our own processes are not foreign."""
    wanted_mb = bench.reading().total_mb / 8
    with holding(wanted_mb) as (pid, _):
        (gpu,) = devices.find_inventory().gpus
        held_mb = footprint.device_mb(pid, gpu.id)
        if held_mb is None or pid not in bench.reading().processes:
            raise SkippedError("the driver does not tell here which process holds how much")
        own = near("foreign, before and beside ours", bench.gpu.foreign_mb, gpu.foreign_mb)
        left_mb = (gpu.usable_mb or 0.0) - held_mb
        with holding(left_mb - CONTEXT_MB):
            used_mb = bench.reading().used_mb
    return (
        f"{own}; of {left_mb:.0f} MB that the ledger leaves, another process got"
        f" {left_mb - CONTEXT_MB:.0f} beside its context; used then: {used_mb:.0f} MB"
    )
