"""Checks of the device's numbers: by NVML, torch, the meter and the inventory."""

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

from localhpo.resources import footprint, nvml
from localhpo.resources import inventory as devices
from localhpo.resources.meter import REFRESH_S, Meter
from localhpo.resources.placement import Gpu
from scripts.gpu_smoke.verdict import FailedError, SkippedError, require, require_near

PROGRAMS = Path(__file__).parent / "programs"
MAX_RELATIVE_DIFFERENCE = 0.03
"""Allowed relative difference: the driver reserves memory (1 % of an A100) unknown to CUDA."""
CONTEXT_MB = 1536.0
"""Largest size of the CUDA context of one process."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Device and folder that the checks use."""

    gpu: Gpu
    folder: Path
    """An empty folder."""

    def reading(self) -> nvml.DeviceReading:
        """Return the device's present state by NVML."""
        found = [r for r in nvml.read_devices() or [] if self.gpu.id == r.id]
        if not found or found[0].total_mb is None:
            raise FailedError(f"NVML does not report device {self.gpu.id}, or its memory")
        return found[0]


@contextlib.contextmanager
def hold_memory(mb: float, **environment: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Run a process that holds memory for the block; yield its id and what torch reported."""
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
            raise FailedError(f"a process could not allocate {mb:.0f} MB; its error is above")
        yield process.pid, json.loads(line)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def check_totals(bench: Bench) -> str:
    """Compare total and free memory by NVML and by torch."""
    with hold_memory(1.0) as (_, by_torch):
        reading = bench.reading()
    within_mb = MAX_RELATIVE_DIFFERENCE * reading.total_mb
    total = require_near(
        f"{reading.name}, total by NVML and torch",
        reading.total_mb,
        by_torch["total_mb"],
        within_mb,
    )
    free_mb = reading.total_mb - reading.used_mb
    free = require_near("free", free_mb, by_torch["free_mb"], within_mb)
    return f"{total}; {free}"


def check_growth(bench: Bench) -> str:
    """Compare what a process allocates with the growth and the process memory by NVML."""
    wanted_mb = bench.reading().total_mb / 8
    before_mb = bench.reading().used_mb
    with hold_memory(wanted_mb) as (pid, _):
        reading, held_mb = bench.reading(), footprint.measure_device_mb(pid, bench.gpu.id)
    grown_mb = reading.used_mb - before_mb
    grown = require(
        wanted_mb <= grown_mb + 1 and grown_mb <= wanted_mb + CONTEXT_MB,
        f"a process that holds {wanted_mb:.0f} MB made the used memory grow by {grown_mb:.0f} MB",
    )
    if held_mb is None or pid not in reading.processes:
        raise SkippedError(f"{grown}; the driver does not report memory by process here")
    return f"{grown}; {require_near('growth, and memory of the process', grown_mb, held_mb)}"


def check_meter(bench: Bench) -> str:
    """Compare the metered peak of a trial with what it allocated."""
    wanted_mb = bench.reading().total_mb / 8
    folder = (bench.folder / "metered").resolve()
    library = nvml.connect()
    if library is None:
        raise FailedError("NVML cannot be read")
    with contextlib.closing(library):
        meter = Meter(library.read)
        meter.begin(folder, [bench.gpu.id])
        with hold_memory(wanted_mb, LOCALHPO_TRIAL_DIR=str(folder)):
            for _ in range(3):
                time.sleep(REFRESH_S)
                meter.refresh()
            use = meter.end(folder)
    sentence = f"a trial holds {wanted_mb:.0f} MB; its peak is measured as"
    if use.peak_mb is None:
        raise FailedError(f"{sentence} nothing")
    return require(
        wanted_mb <= use.peak_mb + 1 and use.peak_mb <= wanted_mb + CONTEXT_MB,
        f"{sentence} {use.peak_mb:.0f} MB",
    )


def check_inventory(bench: Bench) -> str:
    """Check that usable memory can be allocated, and that our processes are not foreign."""
    wanted_mb = bench.reading().total_mb / 8
    with hold_memory(wanted_mb) as (pid, _):
        (gpu,) = devices.find_inventory().gpus
        held_mb = footprint.measure_device_mb(pid, gpu.id)
        if held_mb is None or pid not in bench.reading().processes:
            raise SkippedError("the driver does not report memory by process here")
        own = require_near(
            "foreign memory, before and beside our process", bench.gpu.foreign_mb, gpu.foreign_mb
        )
        left_mb = (gpu.usable_mb or 0.0) - held_mb
        with hold_memory(left_mb - CONTEXT_MB):
            used_mb = bench.reading().used_mb
    return (
        f"{own}; of {left_mb:.0f} MB that are usable, another process allocated"
        f" {left_mb - CONTEXT_MB:.0f} MB beside its context; in use then: {used_mb:.0f} MB"
    )
