"""The loop with real processes and a real store, interrupted and killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import NoGoodTrialError, StudyInterruptedError
from localhpo.executor.process import ProcessExecutor
from localhpo.resources.placement import Inventory
from localhpo.scheduler.events import Snapshot
from localhpo.scheduler.loop import Loop, StoredStudy
from localhpo.scheduler.running_trials import ExecutionTarget
from localhpo.scheduler.trial_table import TrialTable
from localhpo.store import Store, StudyRecord
from localhpo.store.records import Event
from localhpo.study import Study
from localhpo.task import Budget, PrunerSettings, Resources, Task, load_task
from localhpo.trial import State, Trial

NAME = "small/main"


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    def write(body: str) -> tuple[str, ...]:
        head = "import sys, time\nfrom pathlib import Path\nfrom localhpo.reporter import report\n"
        (tmp_path / "train.py").write_text(head + textwrap.dedent(body))
        return ("python", "train.py")

    return write


def run(task: Task, home: Path, fakes: Any, **arguments: Any) -> list[Trial]:
    """Run or resume the study; return what the store then holds."""
    store = Store(home)
    if not store.studies():
        store.create_study(StudyRecord(NAME, task.name, {}, time.time(), "test"))
    executor = ProcessExecutor()
    with store.writer(NAME) as writer:
        target = ExecutionTarget(
            executor, Inventory(cpus=4), lambda number: store.trial_folder(NAME, number)
        )
        table = TrialTable(store.trials(NAME), recorder=writer, clock=target.clock, seed=0)
        loop = Loop(task, fakes.Creator(), target, StoredStudy(table), **arguments)
        for observer in arguments.get("observers", ()):
            observer.loop = loop
        try:
            loop.run()
        finally:
            executor.close()
    return store.trials(NAME)


class StopsAtFirstReport:
    """Interrupts the study as soon as a trial has reported something."""

    loop: Loop

    def on_event(self, event: Event) -> None:
        pass

    def on_change(self, snapshot: Snapshot) -> None:
        if any(running.latest for running in snapshot.running):
            self.loop.interrupt()


def test_scripts_run_in_parallel_and_everything_is_stored(
    make_task: Callable[..., Task], write_script: Any, home: Path, fakes: Any
) -> None:
    command = write_script("report(loss=float(sys.argv[2]))")
    task = make_task(command=command, resources=Resources(parallel=2))
    trials = run(task, home, fakes)
    assert [t.state for t in trials] == [State.COMPLETE] * 4
    assert [t.value for t in trials] == [t.config["learning_rate"] for t in trials]
    kinds = [event.kind for event in Store(home).events(NAME)]
    assert kinds[0] == "begun"
    assert kinds[-1] == "ended"
    assert kinds.count("finished") == 4


def test_an_interrupted_script_runs_again(
    make_task: Callable[..., Task], write_script: Any, home: Path, fakes: Any
) -> None:
    command = write_script(
        """
        report(loss=1.0)
        if not Path("go").exists():
            time.sleep(600)
        """
    )
    task = make_task(command=command, budget=Budget(trials=1))
    with pytest.raises(StudyInterruptedError):
        run(task, home, fakes, observers=[StopsAtFirstReport()])
    (trial,) = Store(home).trials(NAME)
    assert (trial.state, trial.restarts) == (State.INTERRUPTED, 0)
    (task.folder / "go").touch()
    (trial,) = run(task, home, fakes)
    assert (trial.state, trial.restarts, len(trial.measurements)) == (State.COMPLETE, 1, 1)


def test_a_script_learns_that_it_is_pruned(
    make_task: Callable[..., Task], write_script: Any, home: Path, fakes: Any
) -> None:
    command = write_script(
        """
        rate = float(sys.argv[2])
        for step in range(2 if rate < 0.0015 else 6000):
            if report(step=step, loss=rate):
                Path("heard").touch()
                break
            time.sleep(0.05)
        """
    )
    task = make_task(
        command=command,
        budget=Budget(trials=2, grace_s=60),
        pruner=PrunerSettings(name="asha"),
    )
    trials = run(task, home, fakes)
    assert [t.state for t in trials] == [State.COMPLETE, State.PRUNED]
    assert trials[1].value == trials[1].config["learning_rate"]
    assert (task.folder / "heard").exists()


def test_a_command_that_does_not_exist_ends_the_study_early(
    make_task: Callable[..., Task], home: Path, fakes: Any
) -> None:
    task = make_task(command=("no-such-program",), budget=Budget(trials=100))
    with pytest.raises(NoGoodTrialError, match="no-such-program"):
        run(task, home, fakes)
    assert len(Store(home).trials(NAME)) == 3


def test_a_killed_study_goes_on(write_script: Any, tmp_path: Path) -> None:
    """SIGKILL of the process that runs the loop, while one trial is done and one is running."""
    write_script(
        """
        report(loss=float(sys.argv[2]))
        starts = Path("starts")
        starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
        if starts.read_text() == "xx":
            time.sleep(600)
        """
    )
    (tmp_path / "task.toml").write_text(
        """
        [task]
        name = "small"
        command = ["python", "train.py"]
        metric = "loss"
        direction = "minimize"
        [space]
        rate = { type = "float", low = 0.0, high = 1.0 }
        [budget]
        trials = 3
        [creator]
        name = "random"
        """
    )
    code = "from localhpo.study import Study; from localhpo.task import load_task; "
    code += "Study.open(load_task('task.toml')).run()"
    starts = tmp_path / "starts"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as process:
        while not (starts.exists() and starts.read_text() == "xx"):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()

    study = Study.open(load_task(tmp_path / "task.toml"))
    assert [t.state for t in study.trials] == [State.COMPLETE, State.RUNNING]
    study.run()
    assert [(t.state, t.restarts) for t in study.trials] == [
        (State.COMPLETE, 0),
        (State.COMPLETE, 1),
        (State.COMPLETE, 0),
    ]
    assert starts.read_text() == "xxxx"
