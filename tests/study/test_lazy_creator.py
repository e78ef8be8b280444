"""Room for a model whose trials run elsewhere than by this machine's own processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_server import FakeServer

from localhpo.analysis import formatting
from localhpo.analysis.summary import summarize_study
from localhpo.creator import Creator, History
from localhpo.errors import StudyLockedError
from localhpo.llm.placement import MemoryRequest
from localhpo.resources import broker as machines
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker, StudyEntry
from localhpo.resources.placement import Assignment, Gpu, Inventory
from localhpo.study import Study, lazy_creator
from localhpo.study.model_placement import make_model_placement
from localhpo.task import Budget, CreatorSettings, Resources, Task
from localhpo.trial import Proposal

MB = 2**20
HOST = Inventory(cpus=2, memory_mb=4_000)
GPUS = Inventory(cpus=9, gpus=tuple(Gpu(str(i), memory_mb=24_000) for i in range(2)))
HELD = Assignment(0.0, memory_mb=3_950, gpu_share=0.0)
MakeTask = Callable[..., Task]


@pytest.fixture
def task(make_task: MakeTask) -> Task:
    return make_task(command=(), creator=CreatorSettings("random"))


@pytest.fixture
def other() -> Iterator[ResourceBroker]:
    """Another study of this machine."""
    made = ResourceBroker("other/main", HOST)
    yield made
    made.close()


def entry_of(other: ResourceBroker, study: str) -> StudyEntry:
    (found,) = [entry for entry in other.read_entries() if entry.study == study]
    return found


class ModelCreator:
    """A Creator with a model in a server; in this process without one."""

    def __init__(self, creator: Creator, server: FakeServer | None) -> None:
        self._creator, self._server = creator, server
        self.name = creator.name
        self.backend = SimpleNamespace(server=server, on_device=None)

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        return self._creator.propose(history, n)

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a study open its Creator by a function of the placer."""
    monkeypatch.setattr(lazy_creator, "find_inventory", lambda: HOST)
    real = lazy_creator.open_with_past_studies

    def install(
        server: FakeServer | None, load: Callable[[Any], None], *, has_model: bool = True
    ) -> None:
        def opened(store: Any, key: str, task: Task, *, placer: Any) -> Any:
            made = real(store, key, task)
            load(placer)
            return ModelCreator(made, server) if has_model else made

        monkeypatch.setattr(lazy_creator, "open_with_past_studies", opened)

    return install


def test_a_trial_that_is_asked_for_has_its_server_claim_room(
    task: Task, other: ResourceBroker, opens: Callable[..., None], home: Path
) -> None:
    server = FakeServer()
    other.update_claim(MODEL_CLAIM, HELD)

    def load(placer: Any) -> None:
        assert placer.reserve(server.memory_request) is None
        placer.notify("waits for room")
        other.update_claim(MODEL_CLAIM, Assignment(0.0, gpu_share=0.0))
        assert placer.reserve(server.memory_request) == ()
        server.start()

    opens(server, load)
    with Study.open(task, home=home) as study:
        study.tell(study.ask(), 1.0)
        entry = entry_of(other, study.key)
        assert entry.claims[MODEL_CLAIM].memory_mb == pytest.approx(server.need_bytes / MB)
        assert (entry.server_pid, entry.is_manual) == (server.pid, True)
        # What its own process takes is not claimed, and so foreign to others.
        assert server.pid in machines.read_pids()
        study.tell(study.ask(), 2.0)  # and is not opened again
    assert [entry.study for entry in other.read_entries()] == ["other/main"]
    assert server.pid is None
    assert [e.message for e in study.events if e.kind == "note"] == ["waits for room"]


def test_a_model_in_the_process_of_trials_that_are_run_by_hand_is_foreign_as_they_are(
    task: Task, other: ResourceBroker, opens: Callable[..., None], home: Path
) -> None:
    def load(placer: Any) -> None:
        assert placer.reserve(MemoryRequest(100 * MB, on_cpu=True)) == ()
        assert MODEL_CLAIM in entry_of(other, "small/main").claims

    opens(None, load)
    with Study.open(task, home=home) as study:
        study.ask()
        assert [entry.study for entry in other.read_entries()] == ["other/main"]


def test_what_a_study_by_hand_holds_beyond_its_claims_is_not_taken_for_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines.runtime, "folder", lambda: tmp_path)
    by_hand = ResourceBroker("by hand", HOST, is_manual=True, server_pid=lambda: 77)
    by_hand.update_claim(MODEL_CLAIM, HELD)
    assert machines.read_pids() == {77}
    assert [one.memory_mb for one in ResourceBroker("another", HOST).read_other_claims()] == [3_950]


def test_a_server_that_another_study_started_is_counted_by_hand_too(
    task: Task, opens: Callable[..., None], home: Path
) -> None:
    server = FakeServer()
    server.start()
    first = ResourceBroker("first", HOST, server_pid=lambda: server.pid)
    first.update_claim(MODEL_CLAIM, HELD)
    opens(server, lambda placer: None)
    with Study.open(task, home=home) as study:
        study.ask()
        assert entry_of(first, study.key).claims == {MODEL_CLAIM: HELD}
        assert first.read_other_claims() == []  # it counts once


def test_no_model_is_loaded_for_a_study_that_another_process_runs(
    task: Task, opens: Callable[..., None], home: Path, tmp_path: Path
) -> None:
    loaded: list[Any] = []
    opens(FakeServer(), loaded.append)
    (tmp_path / "train.py").touch()
    runnable = replace(task, command=("python", "train.py"))
    said = pytest.raises(StudyLockedError, match="is being run by process")
    with Study.open(runnable, home=home) as study, study._writing(), said:
        Study.open(runnable, home=home).run()
    assert loaded == []


@pytest.mark.parametrize("has_model", [True, False])
def test_a_study_accounts_for_loading_a_model_and_for_nothing_without_one(
    task: Task, opens: Callable[..., None], home: Path, tmp_path: Path, has_model: bool
) -> None:
    opens(None, lambda placer: time.sleep(0.5), has_model=has_model)
    report = "from localhpo.reporter import report\nreport(step=0, loss=0.5)\n"
    (tmp_path / "train.py").write_text(report)
    task = replace(task, command=("python", "train.py"), budget=Budget(trials=1))
    study = Study.open(task, home=home)
    study.run()
    summary = summarize_study(task, study.key, study.trials, elapsed_s=1.0, events=study.events)
    assert ("loading" in summary.resource_use.waited_s) is has_model
    if not has_model:
        return
    loading_s = summary.resource_use.waited_s["loading"]
    assert 0.5 <= loading_s < 5
    assert summary.cost.elapsed_s == pytest.approx(1 + loading_s)
    assert "for the model to load" in formatting.waiting_times(summary.resource_use.waited_s)


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"resources": Resources(executor="ray", gpus=1)}, id="on a cluster"),
        pytest.param({"env": {"CUDA_VISIBLE_DEVICES": "1"}}, id="on other devices"),
    ],
)
def test_where_trials_are_elsewhere_the_model_claims_room_on_its_own_machine(
    elsewhere: dict[str, Any], task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(task, **elsewhere)
    monkeypatch.setattr("localhpo.study.model_placement.find_inventory", lambda: GPUS)
    trials = Inventory(cpus=9, gpus=(Gpu("node/0"),))
    model_placement = make_model_placement(
        task, "small/main", trials, lambda: 7, lambda kind, text: None
    )
    other = ResourceBroker("other/main", GPUS)
    wanted = MemoryRequest(10_000 * MB)
    assert model_placement.placer.reserve(wanted) == ("0",)
    assert other.read_other_claims() == [Assignment(0.0, 0.0, ("0",), 0.0, 10_000)]
    assert (model_placement.broker is None) == (task.resources.executor == "ray")
    model_placement.close()
    assert other.read_other_claims() == []
