"""Memory of a process and its descendants, measured on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from fake_nvml import Device, make_fake_nvml

from localhpo.resources import footprint

MB = 2**20

FAMILY = """
import subprocess, sys
generation = int(sys.argv[1])
held = bytearray(40 * 2**20)
if generation:
    command = [sys.executable, "-c", sys.argv[2], str(generation - 1), sys.argv[2]]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
else:
    print("ready", flush=True)
sys.stdin.read()
if generation:
    child.communicate()
"""
"""Holds 40 MB, as do its child and its grandchild; each ends with its parent."""


@dataclass(frozen=True)
class Family:
    """Process ids of three generations."""

    root: int
    child: int
    grandchild: int


@pytest.fixture
def family() -> Iterator[Family]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", FAMILY, "2", FAMILY]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        root = psutil.Process(process.pid)
        child, grandchild = root.children(recursive=True)
        yield Family(root.pid, child.pid, grandchild.pid)


def test_host_memory_includes_all_descendants(family: Family) -> None:
    own = [psutil.Process(pid).memory_info().rss / MB for pid in vars(family).values()]
    assert min(own) > 40
    assert footprint.measure_host_mb(family.root) == pytest.approx(sum(own), abs=2)
    assert footprint.measure_host_mb(family.child) == pytest.approx(sum(own[1:]), abs=2)
    assert footprint.measure_host_mb(family.grandchild) == pytest.approx(own[2], abs=2)


def test_newly_allocated_memory_is_measured() -> None:
    before = footprint.measure_host_mb(os.getpid())
    taken = bytearray(200 * MB)
    after = footprint.measure_host_mb(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 150
    assert len(taken) == 200 * MB


def test_free_host_memory_is_positive_and_at_most_the_total() -> None:
    assert 0 < footprint.measure_free_host_mb() <= psutil.virtual_memory().total / MB


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        pytest.param(
            "0::/job\n",
            {"memory.max": 512 * MB, "memory.current": 400 * MB, "memory.stat": "inactive_file"},
            id="v2",
        ),
        pytest.param(
            "4:memory:/job\n",
            {
                "memory.limit_in_bytes": 512 * MB,
                "memory.usage_in_bytes": 400 * MB,
                "memory.stat": "total_inactive_file",
            },
            id="v1",
        ),
    ],
)
def test_free_host_memory_respects_the_limit_of_a_cgroup(
    cgroup: str, files: dict[str, int | str], tmp_path: Path
) -> None:
    job = tmp_path / "sys/fs/cgroup" / ("memory/job" if "4:" in cgroup else "job")
    job.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, value in files.items():
        (job / name).write_text(f"{value} {88 * MB}\n" if name == "memory.stat" else f"{value}\n")
    assert footprint.measure_free_host_mb(tmp_path) == pytest.approx(200)
    (job / next(iter(files))).write_text("max\n")
    assert footprint.measure_free_host_mb(tmp_path) > 200


@pytest.fixture
def gone() -> int:
    """Return the id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def driver(monkeypatch: pytest.MonkeyPatch, *devices: Device) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml(list(devices)))


def test_a_process_that_has_ended_is_not_measured(
    gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch, Device(processes={gone: 100}))
    assert footprint.measure_host_mb(gone) is None
    assert footprint.measure_device_mb(gone, "0") is None


def test_device_memory_includes_all_descendants(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Device(uuid="GPU-a", processes={family.root: 300, family.grandchild: 5_000, 1: 70})
    second = Device(uuid="GPU-b", processes={family.child: 10, os.getpid(): 900})
    driver(monkeypatch, first, second)
    assert footprint.measure_device_mb(family.root, "0") == 5_300
    assert footprint.measure_device_mb(family.root, "GPU-a") == 5_300
    assert footprint.measure_device_mb(family.child, "0") == 5_000
    assert footprint.measure_device_mb(family.root, "1") == 10


def test_unreported_device_memory_is_none(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(monkeypatch, Device(processes={family.root: 300, family.child: None}))
    assert footprint.measure_device_mb(family.root, "0") is None
    assert footprint.measure_device_mb(family.root, "7") is None  # no such device


@pytest.mark.parametrize("processes", [{}, {4_000_000: 5_000.0}])
def test_device_memory_is_none_where_no_process_of_the_family_is_reported(
    family: Family, monkeypatch: pytest.MonkeyPatch, processes: dict[int, float | None]
) -> None:
    first, second = Device(uuid="GPU-a", used_mb=5_300, processes=processes), Device(uuid="GPU-b")
    driver(monkeypatch, first, second)
    assert footprint.measure_device_mb(family.root, "0") is None
    second.processes = {family.child: 10}  # then the driver reports ids of this machine
    assert footprint.measure_device_mb(family.root, "0") == 0.0
    assert footprint.measure_used_device_mb("GPU-a") == 5_300
    assert footprint.measure_used_device_mb("7") is None


def test_without_a_driver_device_memory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert footprint.measure_device_mb(os.getpid(), "0") is None
