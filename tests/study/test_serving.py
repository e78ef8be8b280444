"""Which server a study may put to rest, and what it is counted to hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from nvml_stand_in import Device, stand_in
from resting_server import RestingServer, running

from localhpo.llm.vllm import Settings
from localhpo.scheduler.placement import Gpu, Inventory
from localhpo.study.serving import find_tenant

HOST = Inventory(cpus=2, memory_mb=1_000)
TWO_GPUS = Inventory(cpus=2, gpus=(Gpu("0", memory_mb=24_000), Gpu("1", memory_mb=24_000)))


@pytest.fixture
def server() -> Iterator[RestingServer]:
    with running() as started:
        yield started


def creator(server: object) -> Any:
    return SimpleNamespace(server=server)


@pytest.fixture
def devices(server: RestingServer, monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Two devices as NVIDIA's library tells them; the server holds memory of both."""
    server.on_cpu = False
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = [
        Device(uuid="GPU-0", processes={server.pid or 0: 6_000}),
        Device(uuid="GPU-1", processes={server.pid or 0: 7_000, 4_000_000: 900}),
    ]
    monkeypatch.setitem(sys.modules, "pynvml", stand_in(found))
    return found


def test_a_server_on_cpus_holds_what_its_process_holds_and_can_be_put_to_rest(
    server: RestingServer,
) -> None:
    tenant = find_tenant(creator(server), HOST)
    assert tenant is not None
    assert tenant.holds.gpus == ()
    assert 114 < tenant.holds.memory_mb < 250
    tenant.sleep()
    assert (tenant.used_mb() or 0.0) < tenant.holds.memory_mb - 100
    tenant.stop()
    assert server.pid is None
    tenant.wake()
    assert tenant.used_mb() == pytest.approx(tenant.holds.memory_mb, abs=10)


def test_a_server_on_cpus_is_not_counted_on_a_device(server: RestingServer) -> None:
    tenant = find_tenant(creator(server), TWO_GPUS)
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.gpu_memory_mb) == ((), 0.0)


def test_a_server_that_cannot_sleep_can_stop(server: RestingServer) -> None:
    server.can_sleep = False
    tenant = find_tenant(creator(server), HOST)
    assert tenant is not None
    assert tenant.rests == {"stop"}


def test_a_server_that_another_study_uses_too_is_counted(server: RestingServer) -> None:
    server.shared = True
    tenant = find_tenant(creator(server), HOST)
    assert tenant is not None
    assert tenant.shared
    assert 114 < tenant.holds.memory_mb < 250


def test_a_server_that_does_not_run_holds_nothing_to_share() -> None:
    assert find_tenant(creator(RestingServer()), HOST) is None


def test_a_creator_without_a_server_shares_nothing() -> None:
    assert find_tenant(creator(None), HOST) is None
    model_free: Any = SimpleNamespace()
    assert find_tenant(model_free, HOST) is None


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize(
    ("given", "visible", "gpu", "held_mb"),
    [
        ((), None, "0", 6_000),
        (("1",), None, "1", 7_000),
        (("1",), "0", "1", 7_000),  # what it was given comes first
        ((), "1", "1", 7_000),
        ((), "", "0", 6_000),
    ],
)
def test_a_server_on_a_device_holds_what_the_driver_says(
    server: RestingServer, monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...], visible: str | None, gpu: str, held_mb: float,
) -> None:  # fmt: skip
    server.settings = Settings(gpus=given)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    tenant = find_tenant(creator(server), TWO_GPUS)
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.gpu_memory_mb) == ((gpu,), held_mb)
    assert tenant.holds.memory_mb == 0.0
    assert tenant.used_mb() == held_mb


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param({}, id="names no process"),
        pytest.param({"server": None}, id="does not say how much"),
        pytest.param({4_000_000: 6_000.0}, id="names processes by the numbers of the host"),
    ],
)
def test_what_nobody_can_measure_is_not_shared(
    server: RestingServer, devices: list[Device], processes: dict[Any, float | None]
) -> None:
    named = {server.pid if key == "server" else key: mb for key, mb in processes.items()}
    devices[0].processes = named
    assert find_tenant(creator(server), TWO_GPUS) is None


def test_without_a_driver_nothing_is_shared_on_a_device(
    server: RestingServer, devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", stand_in(devices, driver_missing=True))
    assert find_tenant(creator(server), TWO_GPUS) is None
