from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_nvml import Device, NVMLError, NVMLError_NoPermission, make_fake_nvml

from localhpo.resources.inventory import (
    count_cpus,
    find_gpus,
    find_inventory,
    find_partition,
    refresh_gpus,
    total_memory_mb,
)
from localhpo.resources.placement import Gpu

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


def test_this_machine_has_cpus_and_memory() -> None:
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
def test_cpu_quotas_limit_the_cpus(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert count_cpus(write(tmp_path, files)) == expected


def test_a_memory_limit_limits_the_memory(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": f"{512 * 2**20}\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
    )
    assert total_memory_mb(tmp_path) == 512


@pytest.mark.parametrize(
    ("files", "cgroup", "limited"),
    [
        ({}, "", ""),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "max\n"}, "/a/b", ""),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000\n"}, "/a/b", "/a"),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/b/memory.max": "1000\n",  # each step has the limit of its job
            },
            "/a/b",
            "/a",
        ),
        (
            {
                "proc/self/cgroup": "1:name=systemd:/s\n2:memory:/job\n0::/s\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            "/memory/job",
            "/memory/job",
        ),
    ],
)
def test_memory_cgroup_and_limit_are_found(
    tmp_path: Path, files: dict[str, str], cgroup: str, limited: str
) -> None:
    part = find_partition(write(tmp_path, files))
    mount = f"{tmp_path}/sys/fs/cgroup"
    assert part.processors == tuple(sorted(os.sched_getaffinity(0)))
    assert (part.cgroup, part.limited) == (cgroup and mount + cgroup, limited and mount + limited)


def driver(root: Path, count: int) -> Path:
    names = [f"0000:{i:02x}:00.0" for i in range(count)]
    return write(
        root,
        {
            f"proc/driver/nvidia/gpus/{name}/information": "Model: \t\t NVIDIA A\nIRQ: 1\n"
            for name in names
        },
    )


def test_without_a_driver_there_is_no_gpu(tmp_path: Path) -> None:
    assert find_gpus({}, root=tmp_path) == ()


def test_devices_are_read_from_the_driver(tmp_path: Path) -> None:
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


def test_visible_devices_are_assumed_to_exist_without_other_sources(tmp_path: Path) -> None:
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "2,5"}, root=tmp_path) == (Gpu("2"), Gpu("5"))


def use_nvml(monkeypatch: pytest.MonkeyPatch, *devices: Device, **settings: bool) -> ModuleType:
    module = make_fake_nvml(list(devices), **settings)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_nvml_reports_names_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_nvml(monkeypatch, Device(name="NVIDIA 0"), Device(name="NVIDIA 1", uuid="GPU-1"))
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "1"}, root=tmp_path) == (
        Gpu("GPU-1", "NVIDIA 1", 80 * 1024.0, label="1"),
    )


def test_visible_devices_unknown_to_nvml_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_nvml(monkeypatch)
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "0"}, root=tmp_path) == ()


def test_nvml_without_a_driver_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_nvml(monkeypatch, driver_missing=True)
    assert find_gpus({}, root=driver(tmp_path, 1)) == (Gpu("0", "NVIDIA A"),)


def test_memory_of_other_programs_is_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        processes = {os.getpid(): 3000.0, child.pid: 2000.0, 2**22 + 1: 9000.0}
        use_nvml(monkeypatch, Device(total_mb=40_000, used_mb=14_500, processes=processes))
        (gpu,) = find_gpus({}, root=tmp_path)
        child.communicate(b"\n")
    # The 500 MB of the driver itself are not usable either.
    assert (gpu.foreign_mb, gpu.usable_mb) == (9500.0, 30_500.0)


def test_memory_of_unreported_processes_is_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_nvml(monkeypatch, Device(total_mb=1000, used_mb=1200, processes={os.getpid(): None}))
    (gpu,) = find_gpus({}, root=tmp_path)
    assert (gpu.foreign_mb, gpu.usable_mb) == (1200.0, 0.0)


SLICED = Device(
    uuid="GPU-aa",
    slices=[
        Device(name="NVIDIA A MIG 3g", uuid="MIG-1", total_mb=40_000),
        Device(name="NVIDIA A MIG 1g", uuid="MIG-2", total_mb=10_000, used_mb=500),
    ],
)
LARGE, SMALL = (
    Gpu("MIG-1", "NVIDIA A MIG 3g", 40_000.0, label="0/MIG-1"),
    Gpu("MIG-2", "NVIDIA A MIG 1g", 10_000.0, 500.0, label="0/MIG-2"),
)
WHOLE = Device(name="NVIDIA B", uuid="GPU-bb", total_mb=24_000)
B = Gpu("GPU-bb", "NVIDIA B", 24_000.0, label="1")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, (LARGE, SMALL, B)),
        ("MIG-2", (SMALL,)),
        ("MIG-2,MIG-1", (SMALL, LARGE)),
        ("0", (LARGE,)),  # CUDA takes the first slice
        ("1,0", (B, LARGE)),
        ("GPU-bb", (B,)),
        ("GPU-b", (B,)),  # a beginning will do
        ("MIG-", ()),  # of more than one
        ("1,GPU-bb,0", (B,)),  # named twice
        ("MIG-2,MIG-9,MIG-1", (SMALL,)),
        ("", ()),
    ],
)
def test_slices_are_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: tuple[Gpu, ...]
) -> None:
    use_nvml(monkeypatch, SLICED, WHOLE)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert find_gpus(environ, root=tmp_path) == expected


def test_devices_with_index_0_of_different_jobs_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Device(fault=NVMLError_NoPermission("insufficient permissions"))
    ids = []
    for devices in ([Device(uuid="GPU-a"), theirs], [theirs, Device(uuid="GPU-b")]):
        use_nvml(monkeypatch, *devices)
        ids += [gpu.id for gpu in find_gpus({"CUDA_VISIBLE_DEVICES": "0"}, root=tmp_path)]
    assert ids == ["GPU-a", "GPU-b"]


def test_a_device_that_does_not_answer_is_warned_of_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_nvml(monkeypatch, Device(fault=NVMLError("GPU is lost")), WHOLE)
    for visible in ({}, {"CUDA_VISIBLE_DEVICES": "0,1"}):
        inventory = find_inventory(visible, root=tmp_path)
        assert inventory.gpus == (B,)
        assert inventory.warnings == ("GPU 0 does not answer and is not used: GPU is lost",)


def test_a_driver_that_stops_answering_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = use_nvml(monkeypatch, WHOLE)
    monkeypatch.setattr(module, "nvmlDeviceGetCount", module.__dict__["library"].fail)
    assert find_gpus({}, root=driver(tmp_path, 1)) == (Gpu("0", "NVIDIA A"),)


def test_the_connection_to_nvml_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = use_nvml(monkeypatch, WHOLE)
    find_gpus({}, root=tmp_path)
    assert module.__dict__["library"].open == 0


OTHER = 4_000_000


@pytest.fixture
def busy_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    found = Device(uuid="GPU-a", total_mb=24_000, used_mb=1_000, processes={OTHER: 1_000})
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([found]))
    yield found


def test_devices_are_refreshed(busy_device: Device) -> None:
    inventory = find_inventory({})
    assert inventory.refresh is not None
    busy_device.used_mb, busy_device.processes = 19_000, {OTHER: 16_000, os.getpid(): 3_000}
    (gpu,) = inventory.refresh(inventory.gpus, {"GPU-a"})
    assert (gpu.foreign_mb, gpu.label) == (16_000, "0")
    assert refresh_gpus([gpu], ()) == (gpu,)
    busy_device.used_mb, busy_device.processes = 50, {}
    assert refresh_gpus([gpu], ())[0].foreign_mb == 50


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param({OTHER: 16_000, OTHER + 1: 3_000}, id="process ids of the host"),
        pytest.param({OTHER: 16_000, os.getpid(): None}, id="no amounts"),
        pytest.param({}, id="no processes"),
    ],
)
def test_memory_that_may_be_ours_is_not_foreign(busy_device: Device, processes: Any) -> None:
    before = find_gpus({})
    busy_device.used_mb, busy_device.processes = 19_000, processes
    assert refresh_gpus(before, {"GPU-a"}) == before  # one of our trials runs there
    assert refresh_gpus(before, {"GPU-b"})[0].foreign_mb == 19_000


def test_negligible_changes_are_ignored(busy_device: Device) -> None:
    before = find_gpus({})
    busy_device.used_mb, busy_device.processes = 1_060, {OTHER: 1_060}
    assert refresh_gpus(before, ()) == before
    sys.modules["pynvml"].__dict__["library"].open = -1
    assert refresh_gpus(before, ()) == before  # it does not answer now
