from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import LocalHPOError, StoreError
from localhpo.executor.clock import SimulatedClock
from localhpo.executor.protocol import Job, Outcome
from localhpo.executor.simulated import Replay, SimulatedExecutor
from localhpo.scheduler.ledger import Ledger, trial_seed
from localhpo.scheduler.placement import Gpu, Inventory
from localhpo.scheduler.runs import Runs
from localhpo.scheduler.tenancy import Tenancy
from localhpo.task import Resources, Task
from localhpo.trial import Cause, Failure, Measurement, Proposal, State, Trial, Usage

PROPOSAL = Proposal({"learning_rate": 0.1}, "engine:test")
DONE = Outcome(State.COMPLETE, 0.5, None, Usage(wall_s=3.0), "fell to 0.5")


@pytest.fixture
def make_ledger(hands: Any) -> Callable[..., Ledger]:
    def make(*trials: Trial, recorder: Any = None) -> Ledger:
        recorder = recorder or hands.Recorder()
        recorder.trials = {trial.number: trial for trial in trials}
        return Ledger(trials, recorder=recorder, clock=SimulatedClock(1000.0), seed=7)

    return make


def test_the_life_of_a_trial(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger()
    queued = ledger.queue(PROPOSAL)
    assert (queued.number, queued.state, queued.queued_at) == (0, State.QUEUED, 1000.0)
    assert queued.seed == trial_seed(7, 0)
    assert ledger.waiting == [queued]
    ledger.start(queued)
    assert ledger.waiting == []
    ledger.measure(0, [Measurement(0, "loss", 0.5, 1001.0)])
    ended = ledger.end(0, DONE)
    assert (ended.state, ended.score, ended.summary) == (State.COMPLETE, 0.5, "fell to 0.5")
    assert (ended.started_at, ended.finished_at, ended.usage.wall_s) == (1000.0, 1000.0, 3.0)
    assert len(ended.measurements) == 1
    assert (ledger.trials, ledger.counted, ledger.next_number) == ((ended,), 1, 1)
    assert ledger.annotate(0, {"by": "hand"}).user_attrs == {"by": "hand"}


def test_a_trial_that_was_cut_off_runs_again_from_nothing(
    make_ledger: Callable[..., Ledger],
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
    ledger = make_ledger(cut_off)
    (interrupted,) = ledger.take_up()
    assert ledger.take_up() == []
    again = ledger.start(interrupted)
    assert again == Trial(
        4, State.RUNNING, PROPOSAL, restarts=2, user_attrs={"by": "hand"}, started_at=1000.0
    )
    assert ledger.next_number == 5


def test_what_cannot_be_recorded_did_not_happen(
    make_ledger: Callable[..., Ledger], hands: Any
) -> None:
    class Full(hands.Recorder):
        def trial(self, trial: Trial) -> None:
            raise StoreError("the disk is full")

    ledger = make_ledger(recorder=Full())
    with pytest.raises(StoreError):
        ledger.queue(PROPOSAL)
    assert ledger.trials == ()
    assert ledger.next_number == 0


def test_an_ended_trial_does_not_start_again(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger(Trial(0, State.COMPLETE, PROPOSAL, score=1.0))
    with pytest.raises(LocalHPOError, match="trial 0 is complete and cannot become running"):
        ledger.start(ledger[0])


class LastWords:
    """A run whose last report comes just before its end, between two questions of the loop."""

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


class LastWordsExecutor:
    def start(self, job: Job) -> LastWords:
        return LastWords()

    def close(self) -> None:
        pass


def test_last_words_are_heard(make_task: Callable[..., Task]) -> None:
    inventory, clock = Inventory(cpus=1), SimulatedClock()
    runs = Runs(
        task=make_task(),
        executor=LastWordsExecutor(),
        inventory=inventory,
        clock=clock,
        tenancy=Tenancy(None, resources=Resources(), inventory=inventory, clock=clock),
        trial_folder=lambda number: Path(str(number)),
    )
    place = runs.place(runs.need(None))
    assert place is not None
    runs.start(Trial(0, State.RUNNING, PROPOSAL), place)
    assert runs.place(runs.need(None)) is None
    (first,) = runs.poll()
    assert (first.outcome, list(first.measurements)) == (None, [])
    (last,) = runs.poll()
    assert (last.outcome, len(last.measurements)) == (DONE, 1)
    assert len(runs) == 0
    assert runs.place(runs.need(None)) is not None


def test_each_trial_has_its_own_age_whatever_their_order(make_task: Callable[..., Task]) -> None:
    """One that runs again starts before those that come first by number."""
    inventory = Inventory(cpus=2, gpus=(Gpu("0"), Gpu("1")))
    clock, resources = SimulatedClock(), Resources(gpus=1, parallel=2)
    runs = Runs(
        task=make_task(resources=resources),
        executor=SimulatedExecutor(lambda config, seed: Replay([], 100.0), clock),
        inventory=inventory,
        clock=clock,
        tenancy=Tenancy(None, resources=resources, inventory=inventory, clock=clock),
        trial_folder=lambda number: Path(str(number)),
    )
    for number in (5, 2):
        place = runs.place(runs.need(None))
        assert place is not None
        runs.start(Trial(number, State.RUNNING, PROPOSAL), place)
        clock.sleep(10.0)
    assert [(held.gpus, age_s) for held, age_s in runs.ages_s] == [(("0",), 20.0), (("1",), 10.0)]
