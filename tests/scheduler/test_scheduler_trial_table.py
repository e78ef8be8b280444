from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import LocalHPOError, StoreError
from localhpo.executor.clock import SimulatedClock
from localhpo.executor.protocol import Job, Outcome
from localhpo.resources.placement import Inventory
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.scheduler.running_trials import ExecutionTarget, RunningTrials
from localhpo.scheduler.trial_placement import TrialPlacement
from localhpo.scheduler.trial_table import TrialTable, trial_seed
from localhpo.task import Resources, Task
from localhpo.trial import Cause, Failure, Measurement, Origin, Proposal, State, Trial, Usage

PROPOSAL = Proposal({"learning_rate": 0.1}, Origin.parse("test"))
DONE = Outcome(State.COMPLETE, (0.5,), None, Usage(wall_s=3.0), "fell to 0.5")


@pytest.fixture
def make_table(fakes: Any) -> Callable[..., TrialTable]:
    def make(*trials: Trial, recorder: Any = None) -> TrialTable:
        recorder = recorder or fakes.Recorder()
        recorder.trials = {trial.number: trial for trial in trials}
        return TrialTable(trials, recorder=recorder, clock=SimulatedClock(1000.0), seed=7)

    return make


def test_a_trial_from_queue_to_end(make_table: Callable[..., TrialTable]) -> None:
    table = make_table()
    queued = table.queue(PROPOSAL)
    assert (queued.number, queued.state, queued.queued_at) == (0, State.QUEUED, 1000.0)
    assert queued.seed == trial_seed(7, 0)
    assert table.waiting == [queued]
    table.start(queued)
    assert table.waiting == []
    table.add_measurements(0, [Measurement(0, "loss", 0.5, 1001.0)])
    ended = table.end(0, DONE)
    assert (ended.state, ended.value, ended.summary) == (State.COMPLETE, 0.5, "fell to 0.5")
    assert (ended.started_at, ended.finished_at, ended.usage.wall_s) == (1000.0, 1000.0, 3.0)
    assert len(ended.measurements) == 1
    assert (table.trials, table.counted, table.next_number) == ((ended,), 1, 1)
    assert table.set_user_attrs(0, {"by": "hand"}).user_attrs == {"by": "hand"}


def test_a_trial_that_was_cut_off_runs_again_from_the_start(
    make_table: Callable[..., TrialTable],
) -> None:
    cut_off = Trial(
        4,
        State.RUNNING,
        PROPOSAL,
        measurements=(Measurement(0, "loss", 0.5, 1.0),),
        failure=Failure(Cause.SIGNAL, "killed"),
        usage=Usage(wall_s=9.0),
        summary="half done",
        restarts=1,
        user_attrs={"by": "hand"},
        started_at=1.0,
    )
    table = make_table(cut_off)
    (interrupted,) = table.recover()
    assert table.recover() == []
    again = table.start(interrupted)
    assert again == Trial(
        4, State.RUNNING, PROPOSAL, restarts=2, user_attrs={"by": "hand"}, started_at=1000.0
    )
    assert table.next_number == 5


def test_a_trial_that_cannot_be_recorded_is_not_added(
    make_table: Callable[..., TrialTable], fakes: Any
) -> None:
    class Full(fakes.Recorder):
        def write_trial(self, trial: Trial) -> None:
            raise StoreError("the disk is full")

    table = make_table(recorder=Full())
    with pytest.raises(StoreError):
        table.queue(PROPOSAL)
    assert table.trials == ()
    assert table.next_number == 0


def test_an_ended_trial_does_not_start_again(make_table: Callable[..., TrialTable]) -> None:
    table = make_table(Trial(0, State.COMPLETE, PROPOSAL, values=(1.0,)))
    with pytest.raises(LocalHPOError, match="trial 0 is complete and cannot become running"):
        table.start(table[0])


class LateReport:
    """A run whose last report comes just before its end, between two polls of the loop."""

    def __init__(self) -> None:
        self._reported = False
        self._asked = 0

    @property
    def outcome(self) -> Outcome | None:
        self._asked += 1
        return DONE if self._asked > 1 else None

    def poll(self) -> Sequence[Measurement]:
        if self._asked < 2 or self._reported:
            return []
        self._reported = True
        return [Measurement(0, "loss", 0.5, 1.0)]

    def stop(self, state: State) -> None:
        pass


class LateReportExecutor:
    def start(self, job: Job) -> LateReport:
        return LateReport()

    def close(self) -> None:
        pass


def test_a_report_just_before_the_end_is_polled(make_task: Callable[..., Task]) -> None:
    inventory, clock, task = Inventory(cpus=1), SimulatedClock(), make_task()
    target = ExecutionTarget(LateReportExecutor(), inventory, lambda n: Path(str(n)), clock)
    residency = ModelResidency(None, resources=Resources(), inventory=inventory, clock=clock)
    running = RunningTrials(task, target)
    placement = TrialPlacement(task, target, running, residency)
    need = placement.memory_need(None)
    place = placement.claim_place(0, need)
    assert place is not None
    running.start(Trial(0, State.RUNNING, PROPOSAL), place)
    assert placement.find_place(need) is None
    (first,) = running.poll()
    assert (first.outcome, list(first.measurements)) == (None, [])
    (last,) = running.poll()
    assert (last.outcome, len(last.measurements)) == (DONE, 1)
    assert len(running) == 0
    assert placement.find_place(need) is not None
