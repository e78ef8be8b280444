from __future__ import annotations

import sys

import pytest
from nvml_stand_in import Device, stand_in

from localhpo.scheduler.nvml import connect, read_once


def test_a_device_tells_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(
        "NVIDIA A", "GPU-a", 80_000, 3000, {7: 2000.0, 8: None}, 45, power_w=250, energy_j=1e6
    )
    monkeypatch.setitem(sys.modules, "pynvml", stand_in([device]))
    (reading,) = read_once() or []
    assert (reading.id, reading.uuid, reading.index, reading.name) == ("0", "GPU-a", 0, "NVIDIA A")
    assert (reading.total_mb, reading.used_mb) == (80_000, 3000)
    assert reading.processes == {7: 2000.0, 8: None}
    assert (reading.utilisation, reading.power_w, reading.energy_j) == (0.45, 250.0, 1e6)


def test_what_a_driver_does_not_tell_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(utilisation=None, power_w=None, energy_j=None)
    monkeypatch.setitem(sys.modules, "pynvml", stand_in([device]))
    (reading,) = read_once() or []
    assert (reading.utilisation, reading.power_w, reading.energy_j) == (None, None, None)


def test_slices_are_read_in_place_of_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Device(slices=[Device(uuid="MIG-1", used_mb=5), Device(uuid="MIG-2")])
    monkeypatch.setitem(sys.modules, "pynvml", stand_in([Device(), cut]))
    readings = read_once() or []
    assert [(r.id, r.index, r.used_mb) for r in readings] == [
        ("0", 0, 0),
        ("MIG-1", 1, 5),
        ("MIG-2", 1, 0),
    ]


def test_a_driver_that_goes_away_shows_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in([Device()])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    nvml = connect()
    assert nvml is not None
    module.__dict__["library"].open = 0
    assert nvml.read() == []
    nvml.close()
    nvml.close()
    assert module.__dict__["library"].open == -1  # shut down once


def test_no_library_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_once() is None


def test_the_stand_in_has_the_names_of_the_real_library() -> None:
    real = pytest.importorskip("pynvml")
    names = [name for name in vars(stand_in([])) if name.startswith(("nvml", "NVML"))]
    assert len(names) > 10
    assert [name for name in names if not callable(getattr(real, name, None))] == []


def test_the_real_library_without_a_driver_is_no_reading() -> None:
    real = pytest.importorskip("pynvml")
    try:
        real.nvmlInit()
    except real.NVMLError:
        assert read_once() is None
    else:
        real.nvmlShutdown()
        assert read_once() is not None
