"""Which models share memory with trials, and what they are counted to hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nvml import Device, make_fake_nvml
from fake_server import FakeServer, running

from localhpo.llm.placement import DeviceFootprint
from localhpo.llm.vllm import Settings
from localhpo.objective import Objective
from localhpo.resources import trial_slots
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.placement import Assignment, Gpu, Inventory, MemoryNeed
from localhpo.scheduler.loaded_model import InProcessModel, LoadedModel
from localhpo.space import Float, Space
from localhpo.study.model_placement import ModelPlacement
from localhpo.task import CreatorSettings, Resources, Sharing, Task

MB = 2**20
HOST = Inventory(cpus=2, memory_mb=1_000)
THREE_GPUS = Inventory(cpus=9, gpus=tuple(Gpu(str(i), memory_mb=24_000) for i in range(3)))
TASK = Task("task", (), (Objective("loss", "minimize"),), Space([Float("x", 0.0, 1.0)]))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as started:
        yield started


def creator(server: object) -> Any:
    return SimpleNamespace(backend=SimpleNamespace(server=server, on_device=None))


def find_model(
    server: object,
    inventory: Inventory = HOST,
    sharing: Sharing = "auto",
    backend: str = "vllm",
) -> LoadedModel | None:
    creator_settings = CreatorSettings(backend=backend)
    task = replace(TASK, creator=creator_settings, resources=Resources(sharing=sharing))
    return ModelPlacement(task, inventory, None, lambda kind, text: None).find_loaded_model(
        creator(server)
    )


@pytest.fixture
def devices(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Three devices as NVML reports them; the server holds memory of the second."""
    server.on_cpu = False
    found = [Device(uuid=f"GPU-{i}", processes={4_000_000: 900}) for i in range(3)]
    found[1].processes = {server.pid or 0: 6_000, 4_000_000: 900}
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml(found))
    return found


def test_a_server_on_cpus_holds_host_memory_and_can_be_offloaded(
    server: FakeServer,
) -> None:
    model = find_model(server)
    assert model is not None
    assert model.assignment.gpus == ()
    assert 114 < model.assignment.memory_mb < 250
    model.sleep()
    assert (model.measure_mb() or 0.0) < model.assignment.memory_mb - 100
    model.stop()
    assert server.pid is None
    model.wake()
    assert model.measure_mb() == pytest.approx(model.assignment.memory_mb, abs=10)


def test_a_server_on_cpus_holds_no_device_memory(server: FakeServer) -> None:
    model = find_model(server, THREE_GPUS)
    assert model is not None
    assert (model.assignment.gpus, model.assignment.gpu_memory_mb) == ((), 0.0)


def test_a_server_that_cannot_sleep_can_be_stopped(server: FakeServer) -> None:
    server.can_sleep = False
    model = find_model(server)
    assert model is not None
    assert model.offload_methods == {"stop"}


def test_a_shared_server_is_counted(server: FakeServer) -> None:
    server.shared = True
    model = find_model(server)
    assert model is not None
    assert model.shared
    assert 114 < model.assignment.memory_mb < 250


def test_a_server_that_does_not_run_shares_no_memory() -> None:
    assert find_model(FakeServer()) is None


def test_a_creator_without_a_server_shares_no_memory() -> None:
    assert find_model(None) is None
    assert find_model(None, sharing="cpu", backend="openai") is None
    model_free: Any = SimpleNamespace(backend=None)
    task = replace(TASK, resources=Resources(sharing="cpu"))
    assert (
        ModelPlacement(task, HOST, None, lambda kind, text: None).find_loaded_model(model_free)
        is None
    )


def test_a_model_kept_in_host_memory_takes_none_from_the_trials() -> None:
    model = find_model(None, THREE_GPUS, sharing="cpu", backend="transformers")
    assert model is not None
    assert (model.assignment.gpus, model.assignment.memory_mb, model.offload_methods) == (
        (),
        0.0,
        frozenset(),
    )


@pytest.mark.usefixtures("devices")
def test_a_server_on_a_device_holds_what_the_driver_reports(server: FakeServer) -> None:
    model = find_model(server, THREE_GPUS)
    assert model is not None
    assert (model.assignment.gpus, model.assignment.gpu_memory_mb) == (("1",), 6_000)
    assert model.assignment.memory_mb == 0.0
    assert model.measure_mb() == 6_000
    assert server.gpus == ("1",)  # for another start


def test_a_server_on_several_devices_is_counted_on_each(
    server: FakeServer, devices: list[Device]
) -> None:
    devices[2].processes = {server.pid or 0: 7_000}
    server.settings = Settings(gpu_count=2)
    model = find_model(server, THREE_GPUS)
    assert model is not None
    assert (model.assignment.gpus, model.assignment.gpu_memory_mb) == (("1", "2"), 7_000)
    assert server.gpus == ("1", "2")  # for another start
    assert model.measure_mb() == 7_000
    devices[2].processes = {server.pid or 0: 500}  # it sleeps: what is left of most
    devices[1].processes = {server.pid or 0: 700}
    assert model.measure_mb() == 700


def test_trials_get_the_rest_of_each_device_of_a_server(
    server: FakeServer, devices: list[Device]
) -> None:
    devices[2].processes = {server.pid or 0: 6_000}
    model = find_model(server, THREE_GPUS)
    assert model is not None
    resources = Resources(parallel=9, gpus=1)
    for need_mb, slots in ((18_000, 3), (18_001, 1), (24_001, 0)):
        need = MemoryNeed(gpu_memory_mb={gpu.id: need_mb for gpu in THREE_GPUS.gpus})
        assert (
            trial_slots.count_slots(resources, THREE_GPUS, need=need, others=[model.assignment])
            == slots
        )


# Drivers that do not report memory by process.

UNREPORTED = pytest.mark.parametrize(
    "processes",
    [
        pytest.param({}, id="no processes"),
        pytest.param({"server": None}, id="no amounts"),
        pytest.param({4_000_000: 6_000.0}, id="process ids of the host"),
    ],
)


class Run:
    """The model placement of a study, and its notifications."""

    def __init__(self, folder: Path | None, server: FakeServer, gpus: Sequence[Gpu]) -> None:
        self.notifications: list[tuple[str, str]] = []
        self.server = server
        self.inventory = Inventory(cpus=9, gpus=tuple(gpus))
        pid = lambda: self.pid  # noqa: E731
        broker = (
            ResourceBroker("one", self.inventory, folder=folder, server_pid=pid) if folder else None
        )
        notify = lambda kind, text: self.notifications.append((kind, text))  # noqa: E731
        self.pid: int | None = None
        self.model_placement = ModelPlacement(TASK, self.inventory, broker, notify)

    def find_assignment(self) -> Assignment:
        self.pid = self.server.pid
        model = self.model
        assert model is not None
        return model.assignment

    @property
    def model(self) -> LoadedModel | None:
        return self.model_placement.find_loaded_model(creator(self.server))


@pytest.fixture
def unreported(
    server: FakeServer, devices: list[Device], processes: dict[Any, float | None]
) -> list[Device]:
    devices[0].processes = {}
    devices[2].processes = {}
    devices[1].processes = {
        server.pid if key == "server" else key: mb for key, mb in processes.items()
    }
    return devices


@UNREPORTED
@pytest.mark.usefixtures("unreported")
def test_unreported_memory_is_counted_as_requested(
    server: FakeServer,
) -> None:
    server.need_bytes = 9_000 * MB
    run = Run(None, server, [THREE_GPUS.gpus[1]])
    assert run.find_assignment() == Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=9_000)
    ((kind, text),) = run.notifications
    assert kind == "warning"
    assert "9000 MB" in text and "what it requested" in text
    assert run.model is not None
    assert run.model.measure_mb() is None


@UNREPORTED
def test_unreported_memory_of_an_own_server_is_the_growth_of_used_memory(
    server: FakeServer, unreported: list[Device], tmp_path: Path
) -> None:
    gpus = [replace(gpu, foreign_mb=900.0 * (gpu.id == "1")) for gpu in THREE_GPUS.gpus[1:]]
    gpus[1] = replace(gpus[1], foreign_mb=2_000.0)  # so the first has most free memory
    server.need_bytes = 9_000 * MB
    run = Run(tmp_path, server, gpus)
    assert run.model_placement.placer.reserve(server.memory_request) == ("1",)
    assert run.model_placement.broker is not None
    (entry,) = run.model_placement.broker.read_entries()
    assert entry.claims[MODEL_CLAIM].gpu_memory_mb == 9_000
    unreported[1].used_mb = 6_900.0
    assert run.find_assignment() == Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=6_000)
    assert "growth of the memory in use" in run.notifications[0][1]
    model = run.model
    assert model is not None
    unreported[1].used_mb = 1_400.0  # it sleeps
    assert model.measure_mb() == 500
    unreported[1].used_mb = 950.0  # less than its weights: another program freed memory
    assert run.find_assignment().gpu_memory_mb == 9_000


@UNREPORTED
def test_unreported_memory_of_another_studys_server_is_its_claim_and_not_foreign(
    server: FakeServer, unreported: list[Device], tmp_path: Path
) -> None:
    other = ResourceBroker("other", THREE_GPUS, folder=tmp_path, server_pid=lambda: server.pid)
    other.update_claim(
        MODEL_CLAIM, Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=6_000)
    )
    unreported[1].used_mb = 6_900.0
    gpus = [replace(gpu, foreign_mb=6_900.0 * (gpu.id == "1")) for gpu in THREE_GPUS.gpus]
    run = Run(tmp_path, server, gpus)
    assert run.find_assignment() == Assignment(0.0, gpus=("1",), gpu_share=0.0, gpu_memory_mb=6_000)
    assert [gpu.foreign_mb for gpu in run.model_placement.inventory.gpus] == [0, 900, 0]
    assert "study claims that started it" in run.notifications[0][1]


def test_without_a_driver_memory_is_counted_as_requested(
    server: FakeServer, devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml(devices, driver_missing=True))
    server.need_bytes = 9_000 * MB
    run = Run(None, server, [Gpu("0"), Gpu("1")])
    assert (run.find_assignment().gpus, run.find_assignment().gpu_memory_mb) == (("0",), 9_000)


# A model in this process.


def in_process(place: DeviceFootprint, inventory: Inventory) -> LoadedModel | None:
    made = SimpleNamespace(backend=SimpleNamespace(server=None, on_device=place))
    return ModelPlacement(TASK, inventory, None, lambda kind, text: None).find_loaded_model(made)  # type: ignore[arg-type]


THREE_BY_UUID = Inventory(
    cpus=9, gpus=tuple(Gpu(f"GPU-7f00-{i}", memory_mb=24_000) for i in range(3))
)
PLACE = DeviceFootprint("7f00-1", index=2, reserved_bytes=5_000 * MB, working_bytes=1_500 * MB)


def test_a_model_in_this_process_holds_its_memory_and_working_memory(
    devices: list[Device],
) -> None:
    devices[1].uuid = "GPU-7f00-1"
    devices[1].processes = {os.getpid(): 5_400, 4_000_000: 900}
    model = in_process(PLACE, THREE_BY_UUID)
    assert isinstance(model, InProcessModel)
    assert model.assignment == Assignment(
        0.0, gpus=("GPU-7f00-1",), gpu_share=0.0, gpu_memory_mb=6_900
    )
    assert model.offload_methods == frozenset()


def test_unreported_memory_of_this_process_is_what_torch_reserved(devices: list[Device]) -> None:
    devices[1].uuid = "GPU-7f00-1"
    devices[1].processes = {4_000_000: 5_900}
    model = in_process(PLACE, THREE_BY_UUID)
    assert model is not None
    assert (model.assignment.gpus, model.assignment.gpu_memory_mb) == (("GPU-7f00-1",), 6_500)


def test_without_a_driver_the_model_is_on_the_device_with_its_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    model = in_process(PLACE, THREE_GPUS)
    assert model is not None
    assert model.assignment.gpus == ("2",)
    assert in_process(PLACE, HOST) is None


def test_a_loaded_model_is_never_counted_above_the_devices_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    model = in_process(replace(PLACE, index=0), Inventory(cpus=1, gpus=(Gpu("0", "", 6_000),)))
    assert model is not None
    assert model.assignment.gpu_memory_mb == 6_000
