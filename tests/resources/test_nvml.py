from __future__ import annotations

import sys

import pytest
from fake_nvml import Device, NVMLError, NVMLError_NoPermission, make_fake_nvml

from localhpo.resources.nvml import connect, read_devices


def test_everything_that_a_device_reports_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(
        "NVIDIA A", "GPU-a", 80_000, 3000, {7: 2000.0, 8: None}, 45, power_w=250, energy_j=1e6
    )
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([device]))
    (reading,) = read_devices() or []
    assert (reading.id, reading.index, reading.name) == ("GPU-a", 0, "NVIDIA A")
    assert (reading.names, reading.label) == (("GPU-a", "0"), "0")
    assert (reading.total_mb, reading.used_mb) == (80_000, 3000)
    assert reading.processes == {7: 2000.0, 8: None}
    assert (reading.utilization, reading.power_w, reading.energy_j) == (0.45, 250.0, 1e6)


def test_values_that_are_not_reported_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(utilization=None, power_w=None, energy_j=None)
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([device]))
    (reading,) = read_devices() or []
    assert (reading.utilization, reading.power_w, reading.energy_j) == (None, None, None)


def test_slices_replace_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Device(slices=[Device(uuid="MIG-1", used_mb=5), Device(uuid="MIG-2345-67890-abc")])
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([Device(), cut]))
    readings = read_devices() or []
    assert [(r.id, r.index, r.used_mb) for r in readings] == [
        ("GPU-0", 0, 0),
        ("MIG-1", 1, 5),
        ("MIG-2345-67890-abc", 1, 0),
    ]
    assert [reading.label for reading in readings] == ["0", "1/MIG-1", "1/MIG-2345-678"]
    assert readings[1].names == ("MIG-1",)


def test_memory_reserved_by_the_driver_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(total_mb=81_920, used_mb=1_000, reserved_mb=550)
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([device]))
    (reading,) = read_devices() or []
    assert (reading.total_mb, reading.used_mb) == (81_370, 1_000)


def test_a_device_that_uses_host_memory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(total_mb=None, processes={7: 2000.0})
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([device]))
    (reading,) = read_devices() or []
    assert (reading.total_mb, reading.used_mb, reading.processes) == (None, None, {7: 2000.0})


def test_a_device_that_does_not_answer_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Device(fault=NVMLError("GPU is lost"))
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([lost, Device(uuid="GPU-1")]))
    warnings: list[str] = []
    readings = read_devices(warnings.append) or []
    assert [(reading.id, reading.index) for reading in readings] == [("GPU-1", 1)]
    assert warnings == ["GPU 0 does not answer and is not used: GPU is lost"]


def test_devices_of_other_jobs_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Device(fault=NVMLError_NoPermission("insufficient permissions"))
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([theirs, Device(uuid="GPU-1")]))
    warnings: list[str] = []
    readings = read_devices(warnings.append) or []
    assert [(reading.id, reading.index) for reading in readings] == [("GPU-1", 0)]
    assert warnings == []


def test_a_driver_that_goes_away_reports_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_fake_nvml([Device()])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    nvml = connect()
    assert nvml is not None
    module.__dict__["library"].open = 0
    assert nvml.read() is None
    nvml.close()
    nvml.close()
    assert module.__dict__["library"].open == -1  # shut down once


def test_without_the_library_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_devices() is None


def test_the_fake_has_the_names_of_the_real_library() -> None:
    real = pytest.importorskip("pynvml")
    names = [name for name in vars(make_fake_nvml([])) if name.startswith(("nvml", "NVML"))]
    assert len(names) > 10
    assert [name for name in names if not hasattr(real, name)] == []
    assert make_fake_nvml([]).__dict__["nvmlMemory_v2"] == real.nvmlMemory_v2


def test_the_real_library_without_a_driver_reads_nothing() -> None:
    real = pytest.importorskip("pynvml")
    try:
        real.nvmlInit()
    except real.NVMLError:
        assert read_devices() is None
    else:
        real.nvmlShutdown()
        assert read_devices() is not None
