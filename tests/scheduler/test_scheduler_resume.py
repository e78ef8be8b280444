"""Whatever happens to a study, and whenever: each number ends once, and nothing is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localhpo.errors import LocalHPOError, StudyInterruptedError
from localhpo.executor.protocol import Job
from localhpo.scheduler.loop import LoopSettings
from localhpo.trial import COUNTED, Cause, Failure, State

MakeStage = Callable[..., Any]


@dataclass(frozen=True)
class Kill:
    """The process is killed at this call to the record."""

    call: int


@dataclass(frozen=True)
class Interrupt:
    """Ctrl-C, once or twice, after so many seconds."""

    seconds: float
    times: int


incidents = st.lists(
    st.one_of(
        st.builds(Kill, st.integers(0, 60)),
        st.builds(Interrupt, st.floats(0, 60), st.integers(1, 2)),
    ),
    max_size=6,
)


def live_through(stage: Any, hands: Any, incident: Kill | Interrupt, **arguments: Any) -> None:
    """Run the study until the incident, or to its end if that comes first."""
    loop = stage.loop(**arguments)
    if isinstance(incident, Kill):
        stage.recorder.dies_in = incident.call
    else:
        stage.interrupt_at(loop, incident.seconds, incident.times)
    with contextlib.suppress(hands.DeadError, StudyInterruptedError):
        loop.run()
    if isinstance(incident, Interrupt):
        assert stage.executor.at_once == 0


def a_play(hands: Any, rolls: list[int], job: Job) -> Any:
    """How a trial goes depends on its number alone, so that it goes the same way again."""
    roll = rolls[job.number % len(rolls)]
    failure = Failure(Cause.SIGNAL, "killed") if roll % 4 == 0 else None
    return hands.Play(duration_s=1.0 + roll, curve=[float(roll)] * (roll % 3 + 1), failure=failure)


@pytest.mark.parametrize("inbox", [False, True])
def test_interrupted_and_killed_studies_end_as_if_nothing_had_happened(
    make_stage: MakeStage, hands: Any, inbox: bool
) -> None:
    @settings(max_examples=80, deadline=None)
    @given(
        happened=incidents,
        trials=st.integers(1, 8),
        parallel=st.integers(1, 4),
        most=st.integers(1, 4),
        rolls=st.lists(st.integers(0, 20), min_size=1, max_size=8),
        letters=st.lists(st.integers(0, 60), max_size=3 if inbox else 0),
    )
    def check(
        happened: list[Kill | Interrupt],
        trials: int,
        parallel: int,
        most: int,
        rolls: list[int],
        letters: list[int],
    ) -> None:
        stage = make_stage(
            trials=trials,
            parallel=parallel,
            creator=hands.Creator(most=most),
            play=lambda job: a_play(hands, rolls, job),
        )

        def look() -> list[Any]:
            due = [second for second in letters if second <= stage.clock.monotonic()]
            for second in due:
                letters.remove(second)
            return [hands.user(learning_rate=(second + 1) / 1000) for second in due]

        for incident in happened:
            live_through(stage, hands, incident, inbox=look)
            assert stage.executor.most_at_once <= parallel
            assert len(stage.recorder.ends) <= trials
        result = stage.run(inbox=look)

        assert [t.number for t in result] == list(range(len(result)))
        assert tuple(stage.recorder.trials.values()) == result
        assert len(stage.recorder.ends) == len(set(stage.recorder.ends)) == trials
        ended = [t for t in result if t.state in COUNTED]
        assert all(t.failure is not None or t.score is not None for t in ended)
        assert all(len(t.measurements) == rolls[t.number % len(rolls)] % 3 + 1 for t in ended)
        waiting = [t.state for t in result if t.state not in COUNTED]
        assert set(waiting) <= {State.QUEUED, State.INTERRUPTED}
        assert inbox or not waiting

    check()


def test_the_same_study_is_the_same_every_time(make_stage: MakeStage, hands: Any) -> None:
    def told(_: int) -> list[Any]:
        stage = make_stage(trials=9, parallel=3, play=lambda job: a_play(hands, [3, 9, 1, 12], job))
        stage.run()
        return stage.recorder.events

    assert told(0) == told(1)


def test_a_creator_that_breaks_now_and_then_costs_no_number(
    make_stage: MakeStage, hands: Any
) -> None:
    class Moody(hands.Creator):
        def propose(self, history: Any, n: int) -> Any:
            if len(self.shown) % 3 == 1:
                self.shown.append((history, n))
                raise LocalHPOError("not now")
            return super().propose(history, n)

    stage = make_stage(trials=7, parallel=2, creator=Moody(most=1))
    failures = 0
    while len(stage.recorder.ends) < 7:
        try:
            stage.run()
        except LocalHPOError:
            failures += 1
    assert failures >= 2
    assert sorted(stage.recorder.ends) == list(range(7))


def test_a_kill_between_queue_and_start_loses_no_proposal(
    make_stage: MakeStage, hands: Any
) -> None:
    stage = make_stage(trials=2, settings=LoopSettings(poll_s=0.25, concurrent_proposals=False))
    loop = stage.loop()
    stage.recorder.dies_in = 2  # the event that it begins, the trial as queued
    with pytest.raises(hands.DeadError):
        loop.run()
    assert [t.state for t in stage.recorder.trials.values()] == [State.QUEUED]
    stage.run()
    assert [job.number for job in stage.executor.jobs] == [0, 1]
    assert len(stage.creator.shown) == 2
