"""Room for a model whose trials run elsewhere than by this machine's own processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from resting_server import RestingServer

from localhpo.analysis import wording
from localhpo.analysis.summary import summarize
from localhpo.errors import StudyLockedError
from localhpo.llm.hosting import Wanted
from localhpo.scheduler import machine as machines
from localhpo.scheduler.machine import SERVER, Entry, Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory
from localhpo.study import Study, place, proposing
from localhpo.study.place import find_serving
from localhpo.task import Budget, CreatorSettings, Resources, Task

MB = 2**20
HOST = Inventory(cpus=2, memory_mb=4_000)
GPUS = Inventory(cpus=9, gpus=tuple(Gpu(str(i), memory_mb=24_000) for i in range(2)))
HELD = Assignment(0.0, memory_mb=3_950, gpu_share=0.0)
MakeTask = Callable[..., Task]


@pytest.fixture
def task(make_task: MakeTask) -> Task:
    return make_task(command=(), creator=CreatorSettings("random"))


@pytest.fixture
def other() -> Iterator[Machine]:
    """Another study of this machine."""
    made = Machine("other/main", HOST)
    yield made
    made.close()


def entry_of(other: Machine, study: str) -> Entry:
    (found,) = [entry for entry in other.entries if entry.study == study]
    return found


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a study open its Creator by a function of the host."""
    monkeypatch.setattr(proposing, "find_inventory", lambda: HOST)
    real = proposing.open_remembering

    def install(server: RestingServer | None, load: Callable[[Any], None]) -> None:
        def opened(store: Any, key: str, task: Task, *, host: Any) -> Any:
            made: Any = real(store, key, task)
            load(host)
            made.server = server
            if server is not None:
                made.close = server.stop
            return made

        monkeypatch.setattr(proposing, "open_remembering", opened)

    return install


def test_a_trial_that_is_asked_for_has_its_server_claim_room(
    task: Task, other: Machine, opens: Callable[..., None], home: Path
) -> None:
    server = RestingServer()
    other.hold(SERVER, HELD)

    def load(host: Any) -> None:
        assert host.find_room(server.wanted) is None
        host.say("waits for room")
        other.hold(SERVER, Assignment(0.0, gpu_share=0.0))
        assert host.find_room(server.wanted) == ()
        server.start()

    opens(server, load)
    with Study.open(task, home=home) as study:
        study.tell(study.ask(), 1.0)
        entry = entry_of(other, study.key)
        assert entry.claims[SERVER].memory_mb == pytest.approx(server.need_bytes / MB)
        assert (entry.server, entry.by_hand) == (server.pid, True)
        # What its own process takes is not claimed, and so foreign to others.
        assert server.pid in machines.processes()
        study.tell(study.ask(), 2.0)  # and is not opened again
    assert [entry.study for entry in other.entries] == ["other/main"]
    assert server.pid is None
    assert [e.message for e in study.events if e.kind == "note"] == ["waits for room"]


def test_a_model_in_the_process_of_trials_that_are_run_by_hand_is_foreign_as_they_are(
    task: Task, other: Machine, opens: Callable[..., None], home: Path
) -> None:
    def load(host: Any) -> None:
        assert host.find_room(Wanted(100 * MB, on_cpu=True)) == ()
        assert SERVER in entry_of(other, "small/main").claims

    opens(None, load)
    with Study.open(task, home=home) as study:
        study.ask()
        assert [entry.study for entry in other.entries] == ["other/main"]


def test_what_a_study_by_hand_holds_beyond_its_claims_is_not_taken_for_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines.runtime, "folder", lambda: tmp_path)
    by_hand = Machine("by hand", HOST, by_hand=True, server=lambda: 77)
    by_hand.hold(SERVER, HELD)
    assert machines.processes() == {77}
    assert [one.memory_mb for one in Machine("another", HOST).others] == [3_950]


def test_a_server_that_another_study_started_is_counted_by_hand_too(
    task: Task, opens: Callable[..., None], home: Path
) -> None:
    server = RestingServer()
    server.start()
    first = Machine("first", HOST, server=lambda: server.pid)
    first.hold(SERVER, HELD)
    opens(server, lambda host: None)
    with Study.open(task, home=home) as study:
        study.ask()
        assert entry_of(first, study.key).claims == {SERVER: HELD}
        assert first.others == []  # it counts once


def test_no_model_is_loaded_for_a_study_that_another_process_runs(
    task: Task, opens: Callable[..., None], home: Path, tmp_path: Path
) -> None:
    loaded: list[Any] = []
    opens(RestingServer(), loaded.append)
    (tmp_path / "train.py").touch()
    runnable = replace(task, command=("python", "train.py"))
    said = pytest.raises(StudyLockedError, match="is being run by process")
    with Study.open(runnable, home=home) as study, study._writing(), said:
        Study.open(runnable, home=home).run()
    assert loaded == []


def test_how_long_a_model_is_loaded_is_in_the_accounts(
    task: Task, opens: Callable[..., None], home: Path, tmp_path: Path
) -> None:
    opens(None, lambda host: time.sleep(0.5))
    report = "from localhpo.reporter import report\nreport(step=0, loss=0.5)\n"
    (tmp_path / "train.py").write_text(report)
    task = replace(task, command=("python", "train.py"), budget=Budget(trials=1))
    study = Study.open(task, home=home)
    study.run()
    summary = summarize(task, study.key, study.trials, elapsed_s=1.0, events=study.events)
    loading_s = summary.accounts.waited_s["loading"]
    assert 0.5 <= loading_s < 5
    assert summary.cost.elapsed_s == pytest.approx(1 + loading_s)
    assert "for the model to be loaded" in wording.waits(summary.accounts.waited_s)


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
    monkeypatch.setattr(place, "find_inventory", lambda: GPUS)
    trials = Inventory(cpus=9, gpus=(Gpu("node/0"),))
    serving = find_serving(task, "small/main", trials, lambda: 7, lambda kind, text: None)
    other = Machine("other/main", GPUS)
    wanted = Wanted(10_000 * MB)
    assert serving.host.find_room(wanted) == ("0",)
    assert other.others == [Assignment(0.0, 0.0, ("0",), 0.0, 10_000)]
    assert (serving.machine is None) == (task.resources.executor == "ray")
    serving.close()
    assert other.others == []
