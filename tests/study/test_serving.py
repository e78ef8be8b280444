"""Which server a study may put to rest, and what it is counted to hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from nvml_stand_in import Device, stand_in
from resting_server import RestingServer, running

from localhpo.scheduler import placement
from localhpo.scheduler.placement import Gpu, Inventory, Need
from localhpo.scheduler.tenant import Tenant
from localhpo.space import Float, Space
from localhpo.study.serving import find_tenant
from localhpo.task import CreatorSettings, Resources, Sharing, Task

HOST = Inventory(cpus=2, memory_mb=1_000)
THREE_GPUS = Inventory(cpus=9, gpus=tuple(Gpu(str(i), memory_mb=24_000) for i in range(3)))
TASK = Task("task", (), "loss", "minimize", Space([Float("x", 0.0, 1.0)]))


@pytest.fixture
def server() -> Iterator[RestingServer]:
    with running() as started:
        yield started


def creator(server: object) -> Any:
    return SimpleNamespace(server=server)


def tenant_of(
    server: object,
    inventory: Inventory = HOST,
    sharing: Sharing = "auto",
    backend: str = "vllm",
) -> Tenant | None:
    creator_settings = CreatorSettings(backend=backend)
    task = replace(TASK, creator=creator_settings, resources=Resources(sharing=sharing))
    return find_tenant(creator(server), inventory, task)


@pytest.fixture
def devices(server: RestingServer, monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Three devices as NVIDIA's library tells them; the server holds memory of the second."""
    server.on_cpu = False
    found = [Device(uuid=f"GPU-{i}", processes={4_000_000: 900}) for i in range(3)]
    found[1].processes = {server.pid or 0: 6_000, 4_000_000: 900}
    monkeypatch.setitem(sys.modules, "pynvml", stand_in(found))
    return found


def test_a_server_on_cpus_holds_what_its_process_holds_and_can_be_put_to_rest(
    server: RestingServer,
) -> None:
    tenant = tenant_of(server)
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
    tenant = tenant_of(server, THREE_GPUS)
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.gpu_memory_mb) == ((), 0.0)


def test_a_server_that_cannot_sleep_can_stop(server: RestingServer) -> None:
    server.can_sleep = False
    tenant = tenant_of(server)
    assert tenant is not None
    assert tenant.rests == {"stop"}


def test_a_server_that_another_study_uses_too_is_counted(server: RestingServer) -> None:
    server.shared = True
    tenant = tenant_of(server)
    assert tenant is not None
    assert tenant.shared
    assert 114 < tenant.holds.memory_mb < 250


def test_a_server_that_does_not_run_holds_nothing_to_share() -> None:
    assert tenant_of(RestingServer()) is None


def test_a_creator_without_a_server_shares_nothing() -> None:
    assert tenant_of(None) is None
    assert tenant_of(None, sharing="cpu", backend="openai") is None
    model_free: Any = SimpleNamespace()
    task = replace(TASK, resources=Resources(sharing="cpu"))
    assert find_tenant(model_free, HOST, task) is None


def test_a_model_kept_in_host_memory_needs_no_room_of_the_trials() -> None:
    tenant = tenant_of(None, THREE_GPUS, sharing="cpu", backend="transformers")
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.memory_mb, tenant.rests) == ((), 0.0, frozenset())


@pytest.mark.usefixtures("devices")
def test_a_server_on_a_device_holds_what_the_driver_says(server: RestingServer) -> None:
    tenant = tenant_of(server, THREE_GPUS)
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.gpu_memory_mb) == (("1",), 6_000)
    assert tenant.holds.memory_mb == 0.0
    assert tenant.used_mb() == 6_000


def test_a_server_on_several_devices_holds_all_of_them(
    server: RestingServer, devices: list[Device]
) -> None:
    devices[2].processes = {server.pid or 0: 7_000}
    tenant = tenant_of(server, THREE_GPUS)
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.gpu_memory_mb) == (("1", "2"), 7_000)
    assert tenant.used_mb() == 7_000
    devices[2].processes = {server.pid or 0: 500}  # it sleeps: what is left of most
    devices[1].processes = {server.pid or 0: 700}
    assert tenant.used_mb() == 700


def test_trials_have_what_a_server_leaves_of_each_of_its_devices(
    server: RestingServer, devices: list[Device]
) -> None:
    devices[2].processes = {server.pid or 0: 6_000}
    tenant = tenant_of(server, THREE_GPUS)
    assert tenant is not None
    resources = Resources(parallel=9, gpus=1)
    for need_mb, slots in ((18_000, 3), (18_001, 1), (24_001, 0)):
        need = Need(gpu_memory_mb={gpu.id: need_mb for gpu in THREE_GPUS.gpus})
        assert placement.slots(resources, THREE_GPUS, need=need, others=[tenant.holds]) == slots


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
    devices[1].processes = named
    assert tenant_of(server, THREE_GPUS) is None


def test_without_a_driver_nothing_is_shared_on_a_device(
    server: RestingServer, devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", stand_in(devices, driver_missing=True))
    assert tenant_of(server, THREE_GPUS) is None
