"""Which server a study may put to rest, and what it is counted to hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvml_stand_in import Device, stand_in
from resting_server import RestingServer, running

from localhpo.llm.hosting import OnDevice
from localhpo.llm.vllm import Settings
from localhpo.scheduler import placement
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory, Need
from localhpo.scheduler.tenant import InProcess, Tenant
from localhpo.space import Float, Space
from localhpo.study.serving import Serving
from localhpo.task import CreatorSettings, Resources, Sharing, Task

MB = 2**20
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
    return Serving(task, inventory, None, lambda kind, text: None).tenant(creator(server))


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
    assert Serving(task, HOST, None, lambda kind, text: None).tenant(model_free) is None


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
    assert server.gpus == ("1",)  # for another start


def test_a_server_on_several_devices_holds_all_of_them(
    server: RestingServer, devices: list[Device]
) -> None:
    devices[2].processes = {server.pid or 0: 7_000}
    server.settings = Settings(split=2)
    tenant = tenant_of(server, THREE_GPUS)
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.gpu_memory_mb) == (("1", "2"), 7_000)
    assert server.gpus == ("1", "2")  # for another start
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


# Where the driver does not tell what each process holds

UNTOLD = pytest.mark.parametrize(
    "processes",
    [
        pytest.param({}, id="names no process"),
        pytest.param({"server": None}, id="does not say how much"),
        pytest.param({4_000_000: 6_000.0}, id="names processes by the numbers of the host"),
    ],
)


class Run:
    """The serving of a study, and what it said."""

    def __init__(self, folder: Path | None, server: RestingServer, gpus: Sequence[Gpu]) -> None:
        self.said: list[tuple[str, str]] = []
        self.server = server
        self.inventory = Inventory(cpus=9, gpus=tuple(gpus))
        pid = lambda: self.pid  # noqa: E731
        machine = Machine("one", self.inventory, folder=folder, server=pid) if folder else None
        say = lambda kind, text: self.said.append((kind, text))  # noqa: E731
        self.pid: int | None = None
        self.serving = Serving(TASK, self.inventory, machine, say)

    def holds(self) -> Assignment:
        self.pid = self.server.pid
        tenant = self.tenant
        assert tenant is not None
        return tenant.holds

    @property
    def tenant(self) -> Tenant | None:
        return self.serving.tenant(creator(self.server))


@pytest.fixture
def untold(
    server: RestingServer, devices: list[Device], processes: dict[Any, float | None]
) -> list[Device]:
    devices[0].processes = {}
    devices[2].processes = {}
    devices[1].processes = {
        server.pid if key == "server" else key: mb for key, mb in processes.items()
    }
    return devices


@UNTOLD
@pytest.mark.usefixtures("untold")
def test_what_nobody_can_measure_is_counted_as_the_server_asks_for_it(
    server: RestingServer,
) -> None:
    server.need_bytes = 9_000 * MB
    run = Run(None, server, [THREE_GPUS.gpus[1]])
    assert run.holds() == Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=9_000)
    ((kind, text),) = run.said
    assert kind == "warning"
    assert "9000 MB" in text and "asks for" in text
    assert run.tenant is not None
    assert run.tenant.used_mb() is None


@UNTOLD
def test_a_server_that_was_started_in_this_run_holds_what_is_used_more_since(
    server: RestingServer, untold: list[Device], tmp_path: Path
) -> None:
    gpus = [replace(gpu, foreign_mb=900.0 * (gpu.id == "1")) for gpu in THREE_GPUS.gpus[1:]]
    gpus[1] = replace(gpus[1], foreign_mb=2_000.0)  # so the first has most room
    server.need_bytes = 9_000 * MB
    run = Run(tmp_path, server, gpus)
    assert run.serving.host.find_room(server.wanted) == ("1",)
    assert run.serving.machine is not None
    (entry,) = run.serving.machine.entries
    assert entry.claims[SERVER].gpu_memory_mb == 9_000
    untold[1].used_mb = 6_900.0
    assert run.holds() == Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=6_000)
    assert "is used of it" in run.said[0][1]
    tenant = run.tenant
    assert tenant is not None
    untold[1].used_mb = 1_400.0  # it sleeps
    assert tenant.used_mb() == 500
    untold[1].used_mb = 950.0  # less than its weights: somebody else gave memory back
    assert run.holds().gpu_memory_mb == 9_000


@UNTOLD
def test_a_server_of_another_study_holds_what_that_one_counts_and_is_not_foreign(
    server: RestingServer, untold: list[Device], tmp_path: Path
) -> None:
    other = Machine("other", THREE_GPUS, folder=tmp_path, server=lambda: server.pid)
    other.hold(SERVER, Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=6_000))
    untold[1].used_mb = 6_900.0
    gpus = [replace(gpu, foreign_mb=6_900.0 * (gpu.id == "1")) for gpu in THREE_GPUS.gpus]
    run = Run(tmp_path, server, gpus)
    assert run.holds() == Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=6_000)
    assert [gpu.foreign_mb for gpu in run.serving.inventory.gpus] == [0, 900, 0]
    assert "other studies" in run.said[0][1]


def test_without_a_driver_a_server_on_a_device_is_counted_as_it_asks_for_it(
    server: RestingServer, devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", stand_in(devices, driver_missing=True))
    server.need_bytes = 9_000 * MB
    run = Run(None, server, [Gpu("0"), Gpu("1")])
    assert (run.holds().gpus, run.holds().gpu_memory_mb) == (("0",), 9_000)


# A model in this process


def in_process(place: OnDevice, inventory: Inventory) -> Tenant | None:
    made = SimpleNamespace(server=None, on_device=place)
    return Serving(TASK, inventory, None, lambda kind, text: None).tenant(made)  # type: ignore[arg-type]


THREE_BY_UUID = Inventory(
    cpus=9, gpus=tuple(Gpu(f"GPU-7f00-{i}", memory_mb=24_000) for i in range(3))
)
PLACE = OnDevice("7f00-1", index=2, reserved_bytes=5_000 * MB, room_bytes=1_500 * MB)


def test_a_model_in_this_process_holds_what_the_process_does_and_room_to_answer(
    devices: list[Device],
) -> None:
    devices[1].uuid = "GPU-7f00-1"
    devices[1].processes = {os.getpid(): 5_400, 4_000_000: 900}
    tenant = in_process(PLACE, THREE_BY_UUID)
    assert isinstance(tenant, InProcess)
    assert tenant.holds == Assignment(0.0, gpus=("GPU-7f00-1",), gpu_share=0.0, gpu_memory_mb=6_900)
    assert tenant.rests == frozenset()


def test_where_the_driver_does_not_tell_what_torch_holds_counts(devices: list[Device]) -> None:
    devices[1].uuid = "GPU-7f00-1"
    devices[1].processes = {4_000_000: 5_900}
    tenant = in_process(PLACE, THREE_BY_UUID)
    assert tenant is not None
    assert (tenant.holds.gpus, tenant.holds.gpu_memory_mb) == (("GPU-7f00-1",), 6_500)


def test_without_a_driver_the_model_is_on_the_device_of_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    tenant = in_process(PLACE, THREE_GPUS)
    assert tenant is not None
    assert tenant.holds.gpus == ("2",)
    assert in_process(PLACE, HOST) is None


def test_a_model_that_is_loaded_never_holds_more_than_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    tenant = in_process(replace(PLACE, index=0), Inventory(cpus=1, gpus=(Gpu("0", "", 6_000),)))
    assert tenant is not None
    assert tenant.holds.gpu_memory_mb == 6_000
