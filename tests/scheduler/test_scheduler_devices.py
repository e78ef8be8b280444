from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from localhpo.scheduler.devices import count_cpus, find_gpus, find_inventory, total_memory_mb
from localhpo.scheduler.placement import Gpu

HERE = len(os.sched_getaffinity(0))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_this_machine_has_what_trials_need() -> None:
    inventory = find_inventory()
    assert 1 <= inventory.cpus <= (os.cpu_count() or 1)
    assert inventory.memory_mb is not None
    assert inventory.memory_mb > 100


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, HERE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, HERE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            # A parent's quota binds its children.
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/job\n2:memory:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            HERE,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, HERE),
    ],
)
def test_cpu_quotas_count(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert count_cpus(write(tmp_path, files)) == expected


def test_a_memory_limit_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": f"{512 * 2**20}\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
    )
    assert total_memory_mb(tmp_path) == 512


def driver(root: Path, count: int) -> Path:
    names = [f"0000:{i:02x}:00.0" for i in range(count)]
    return write(
        root,
        {
            f"proc/driver/nvidia/gpus/{name}/information": "Model: \t\t NVIDIA A\nIRQ: 1\n"
            for name in names
        },
    )


def test_no_driver_is_no_gpu(tmp_path: Path) -> None:
    assert find_gpus({}, root=tmp_path) == ()


def test_the_driver_shows_its_devices(tmp_path: Path) -> None:
    assert find_gpus({}, root=driver(tmp_path, 2)) == (Gpu("0", "NVIDIA A"), Gpu("1", "NVIDIA A"))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("1", ("1",)),
        ("2, 0", ("2", "0")),
        ("1,-1,0", ("1",)),
        ("1,9,0", ("1",)),
        ("1,1", ("1",)),
        ("GPU-3f2a,MIG-77", ("GPU-3f2a", "MIG-77")),
    ],
)
def test_cuda_visible_devices_restricts(
    tmp_path: Path, visible: str, expected: tuple[str, ...]
) -> None:
    gpus = find_gpus({"CUDA_VISIBLE_DEVICES": visible}, root=driver(tmp_path, 3))
    assert tuple(gpu.id for gpu in gpus) == expected


def test_a_list_is_believed_where_nothing_else_is_known(tmp_path: Path) -> None:
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "2,5"}, root=tmp_path) == (Gpu("2"), Gpu("5"))


def fake_nvml(count: int, *, driver_missing: bool = False) -> ModuleType:
    """Return a stand-in for nvidia-ml-py, which finds no driver on most test machines."""
    module = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def init() -> None:
        if driver_missing:
            raise NVMLError

    module.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetName=lambda handle: f"NVIDIA {handle}",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=80 * 2**30),
    )
    return module


def test_the_management_library_knows_names_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(2))
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "1"}, root=tmp_path) == (
        Gpu("1", "NVIDIA 1", 80 * 1024.0),
    )


def test_a_list_of_devices_that_do_not_exist_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(0))
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "0"}, root=tmp_path) == ()


def test_a_management_library_without_a_driver_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(0, driver_missing=True))
    assert find_gpus({}, root=driver(tmp_path, 1)) == (Gpu("0", "NVIDIA A"),)
