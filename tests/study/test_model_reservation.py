"""Memory that is reserved for a model before it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_server import FakeServer

from localhpo.errors import InputError
from localhpo.executor.process import ProcessExecutor
from localhpo.llm.placement import MemoryRequest
from localhpo.llm.vllm import Settings
from localhpo.objective import Objective
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.placement import Assignment, Gpu, Inventory
from localhpo.space import Float, Space
from localhpo.study import Study, lazy_creator
from localhpo.study import study as studies
from localhpo.study.model_placement import ModelReservation
from localhpo.task import Budget, Resources, Task

MB = 2**20
GPUS = Inventory(cpus=9, gpus=(Gpu("0", "", 24_000, 4_000), Gpu("1", memory_mb=24_000)))
TASK = Task("task", (), (Objective("loss", "minimize"),), Space([Float("x", 0.0, 1.0)]))


@pytest.fixture
def server() -> FakeServer:
    """A server that requests 10 GB of a device; it is never started."""
    made = FakeServer()
    made.on_cpu = False
    made.need_bytes = 10_000 * MB
    return made


@pytest.fixture
def make_broker(tmp_path: Path) -> Callable[..., ResourceBroker]:
    return lambda name, inventory=GPUS: ResourceBroker(name, inventory, folder=tmp_path)


MakeBroker = Callable[..., ResourceBroker]


def on(gpu: str, mb: float, share: float = 0.0) -> Assignment:
    return Assignment(1.0 if share else 0.0, gpus=(gpu,), gpu_share=share, gpu_memory_mb=mb)


def test_memory_is_reserved_on_the_device_with_most_free_memory(
    server: Any, make_broker: MakeBroker
) -> None:
    one, other = make_broker("one"), make_broker("other")
    reservation = ModelReservation(GPUS, one)
    assert reservation.reserve(server.memory_request) == ("1",)
    assert one.read_entries()[1].claims == {MODEL_CLAIM: on("1", 10_000)}
    assert other.read_other_claims() == [on("1", 10_000)]
    assert ModelReservation(GPUS, other).reserve(server.memory_request) == (
        "0",
    )  # 20 GB are left there, 14 here
    assert ModelReservation(GPUS, make_broker("third")).reserve(server.memory_request) == ("1",)
    assert ModelReservation(GPUS, make_broker("fourth")).reserve(server.memory_request) == ("0",)
    assert ModelReservation(GPUS, make_broker("fifth")).reserve(server.memory_request) is None
    one.close()
    assert ModelReservation(GPUS, make_broker("sixth")).reserve(server.memory_request) == ("1",)


def test_a_waiting_model_precedes_new_trials(server: Any, make_broker: MakeBroker) -> None:
    busy, waiting = make_broker("busy"), make_broker("waiting")
    for number, gpu in enumerate(("0", "1")):
        busy.claim(str(number), on(gpu, 18_000, 1.0), lambda others, gpu=gpu: on(gpu, 18_000, 1.0))
    reservation = ModelReservation(GPUS, waiting)
    assert reservation.reserve(server.memory_request) is None
    assert busy.claim("2", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is None
    busy.release("1")
    assert reservation.reserve(server.memory_request) == ("1",)


def test_trials_do_not_yield_where_models_hold_the_memory(
    server: Any, make_broker: MakeBroker
) -> None:
    busy, waiting = make_broker("busy"), make_broker("waiting")
    busy.update_claim(MODEL_CLAIM, on("0", 15_000))
    busy.update_claim("0", on("1", 20_000, 1.0))
    third = make_broker("third")
    third.update_claim(MODEL_CLAIM, on("1", 15_000))
    reservation = ModelReservation(GPUS, waiting)
    assert reservation.reserve(server.memory_request) is None
    assert busy.claim("2", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is not None
    third.update_claim(
        MODEL_CLAIM, on("1", 500)
    )  # it sleeps: the end of the trial would free enough
    assert reservation.reserve(server.memory_request) is None
    assert busy.claim("3", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is None


def test_a_model_waits_for_the_device_that_trials_can_free(
    server: Any, make_broker: MakeBroker
) -> None:
    busy, waiting, third = make_broker("busy"), make_broker("waiting"), make_broker("third")
    busy.update_claim("0", on("0", 18_000, 1.0))
    third.update_claim(MODEL_CLAIM, on("1", 15_000))  # on the device with most free memory
    assert ModelReservation(GPUS, waiting).reserve(server.memory_request) is None
    (request,) = [entry.request for entry in busy.read_entries() if entry.study == "waiting"]
    assert request == on("0", 10_000)
    assert busy.claim("1", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is None


def test_a_request_above_a_devices_size_reserves_all_of_it(
    server: Any, make_broker: MakeBroker
) -> None:
    server.need_bytes = 99_000 * MB
    one = make_broker("one")
    assert ModelReservation(GPUS, one).reserve(server.memory_request) == ("1",)
    assert one.read_entries()[0].claims[MODEL_CLAIM].gpu_memory_mb == 24_000


def test_chosen_devices_and_share_are_reserved(server: Any, make_broker: MakeBroker) -> None:
    server.settings = Settings(gpus=("0", "1"), gpu_share=0.5)
    one = make_broker("one")
    assert ModelReservation(GPUS, one).reserve(server.memory_request) == ("0", "1")
    assert one.read_entries()[0].claims[MODEL_CLAIM].gpu_memory_mb == 12_000
    server.settings = Settings(gpus=("7",))
    assert ModelReservation(GPUS, make_broker("two")).reserve(server.memory_request) == ()


def test_a_split_model_gets_the_devices_with_most_free_memory(
    server: Any, make_broker: MakeBroker
) -> None:
    gpus = Inventory(cpus=9, gpus=(*GPUS.gpus, Gpu("2", memory_mb=24_000)))
    server.settings = Settings(gpu_count=2)
    one, other = make_broker("one", gpus), make_broker("other", gpus)
    assert ModelReservation(gpus, one).reserve(server.memory_request) == ("1", "2")
    claim = one.read_entries()[-1].claims[MODEL_CLAIM]
    assert (claim.gpus, claim.gpu_memory_mb) == (("1", "2"), 10_000)  # of each
    busy = make_broker("busy", gpus)
    busy.update_claim("0", on("1", 12_000, 1.0))
    assert ModelReservation(gpus, other).reserve(server.memory_request) == ("0", "2")


def test_splitting_over_more_devices_than_exist_is_refused(
    server: Any, make_broker: MakeBroker
) -> None:
    server.settings = Settings(gpu_count=64)
    one = make_broker("one")
    for broker in (one, None):
        with pytest.raises(InputError, match="GPUs that the model may use here, 2; got 64"):
            ModelReservation(GPUS, broker).reserve(server.memory_request)
    assert not one.read_entries()[0].claims
    no_gpus = Inventory(cpus=2)  # none that are known
    assert (
        ModelReservation(no_gpus, make_broker("two", no_gpus)).reserve(server.memory_request) == ()
    )


@pytest.mark.parametrize("by_ask", [False, True])
def test_a_study_whose_model_needs_too_many_devices_raises_an_input_error(
    by_ask: bool,
    make_task: Any,
    tmp_path: Path,
    home: Path,
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setattr(lazy_creator, "find_inventory", lambda: GPUS)
    monkeypatch.setattr(
        studies, "find_execution_target", lambda task, executor: (ProcessExecutor(), GPUS)
    )
    server.settings = Settings(gpu_count=64)
    (tmp_path / "train.py").touch()

    def open_with_server(*given: Any, placer: Any) -> Any:
        assert placer.reserve(server.memory_request) is not None
        raise AssertionError("the server was allowed to start")

    monkeypatch.setattr(lazy_creator, "open_with_past_studies", open_with_server)
    study = Study.open(make_task(budget=Budget(trials=1)), home=home)
    with study, pytest.raises(InputError, match="got 64"):
        study.ask() if by_ask else study.run()
    assert server.pid is None


@pytest.mark.parametrize("ids", [("GPU-7f00-0", "GPU-7f00-1"), ("0", "1")])
def test_a_model_in_this_process_gets_one_of_its_visible_devices(
    ids: Sequence[str], make_broker: MakeBroker
) -> None:
    gpus = Inventory(cpus=9, gpus=tuple(Gpu(id, memory_mb=24_000) for id in ids))
    one, other = make_broker("one", gpus), make_broker("other", gpus)
    wanted = MemoryRequest(20_000 * MB, candidates=("7f00-0", "7f00-1"))
    assert ModelReservation(gpus, one).reserve(wanted) == ("7f00-0",)
    assert one.read_entries()[-1].claims[MODEL_CLAIM] == on(ids[0], 20_000)
    assert ModelReservation(gpus, other).reserve(wanted) == ("7f00-1",)
    third = make_broker("third", gpus)
    assert ModelReservation(gpus, third).reserve(wanted) is None
    assert ModelReservation(gpus, third).reserve(
        MemoryRequest(1_000 * MB, candidates=("7f00-0",))
    ) == ("7f00-0",)
    no_gpus = Inventory(cpus=9)
    assert ModelReservation(no_gpus, third).reserve(wanted) == ()


def test_a_server_on_cpus_reserves_host_memory(server: Any, make_broker: MakeBroker) -> None:
    server.on_cpu = True
    host = Inventory(cpus=2, memory_mb=16_000)
    assert ModelReservation(host, make_broker("one", host)).reserve(server.memory_request) == ()
    assert ModelReservation(host, make_broker("two", host)).reserve(server.memory_request) is None


def test_without_a_broker_or_known_devices_nothing_is_reserved(
    server: Any, make_broker: MakeBroker
) -> None:
    assert ModelReservation(GPUS, None).reserve(server.memory_request) == ()
    one = make_broker("one")
    assert ModelReservation(Inventory(cpus=2), one).reserve(server.memory_request) == ()
    assert one.read_entries()[0].claims == {}


class RecordingObserver:
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_event(self, event: Any) -> None:
        self.events.append(f"{event.kind}: {event.message}")

    def on_change(self, snapshot: Any) -> None:
        pass


class WithServer:
    """A creator whose model runs in a server; stops the server when it is closed."""

    def __init__(self, creator: Any, server: FakeServer) -> None:
        self.name = creator.name
        self.propose = creator.propose
        self.backend = SimpleNamespace(server=server, on_device=None)
        self.close = server.stop


def test_a_study_reserves_memory_before_its_server_starts_and_reports_its_wait(
    make_task: Any, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    report = "from localhpo.reporter import report\nreport(step=0, loss=0.5)\n"
    (tmp_path / "train.py").write_text(report)
    host = Inventory(cpus=2, memory_mb=4_000)
    monkeypatch.setattr(
        studies, "find_execution_target", lambda task, executor: (ProcessExecutor(), host)
    )

    other = ResourceBroker("other/main", host)
    other.update_claim(MODEL_CLAIM, Assignment(0.0, memory_mb=3_950, gpu_share=0.0))
    server = FakeServer()
    seen: list[Any] = []

    def open_with_server(store: Any, key: str, task: Task, *, placer: Any) -> Any:
        made = opened(store, key, replace(task, creator=replace(task.creator, name="random")))
        assert placer.reserve(server.memory_request) is None
        placer.notify("waiting for memory")
        other.close()
        assert placer.reserve(server.memory_request) == ()
        seen.extend(entry.claims[MODEL_CLAIM].memory_mb for entry in other.read_entries())
        server.start()
        return WithServer(made, server)

    opened = lazy_creator.open_with_past_studies
    monkeypatch.setattr(lazy_creator, "open_with_past_studies", open_with_server)
    observer = RecordingObserver()
    task = make_task(budget=Budget(trials=1), resources=Resources(sharing="resident"))
    with Study.open(task, home=home) as study:
        study.run(observers=[observer])
        recorded = [f"{event.kind}: {event.message}" for event in study.events]
    assert seen == [pytest.approx(server.need_bytes / MB)]
    assert observer.events[0] == "note: waiting for memory"
    assert recorded.count("note: waiting for memory") == 1
    assert server.pid is None
    assert other.read_entries() == []
