"""Studies that are killed or interrupted at any moment: each trial ends once, none is lost."""

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

MakeBench = Callable[..., Any]


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


def run_until(bench: Any, fakes: Any, incident: Kill | Interrupt, **arguments: Any) -> None:
    """Run the study until the incident, or to its end if that comes first."""
    loop = bench.loop(**arguments)
    if isinstance(incident, Kill):
        bench.recorder.dies_in = incident.call
    else:
        bench.interrupt_at(loop, incident.seconds, incident.times)
    with contextlib.suppress(fakes.DeadError, StudyInterruptedError):
        loop.run()
    if isinstance(incident, Interrupt):
        assert bench.executor.running_now == 0


def make_script(fakes: Any, rolls: list[int], job: Job) -> Any:
    """A trial's course depends on its number alone, so that it is the same again."""
    roll = rolls[job.number % len(rolls)]
    failure = Failure(Cause.SIGNAL, "killed") if roll % 4 == 0 else None
    return fakes.TrialScript(
        duration_s=1.0 + roll, curve=[float(roll)] * (roll % 3 + 1), failure=failure
    )


@pytest.mark.parametrize("has_enqueued", [False, True])
def test_interrupted_and_killed_studies_finish_with_every_trial_once(
    make_bench: MakeBench, fakes: Any, has_enqueued: bool
) -> None:
    @settings(max_examples=80, deadline=None)
    @given(
        happened=incidents,
        trials=st.integers(1, 8),
        parallel=st.integers(1, 4),
        most=st.integers(1, 4),
        rolls=st.lists(st.integers(0, 20), min_size=1, max_size=8),
        enqueued=st.lists(st.integers(0, 60), max_size=3 if has_enqueued else 0),
    )
    def check(
        happened: list[Kill | Interrupt],
        trials: int,
        parallel: int,
        most: int,
        rolls: list[int],
        enqueued: list[int],
    ) -> None:
        bench = make_bench(
            trials=trials,
            parallel=parallel,
            creator=fakes.Creator(most=most),
            script=lambda job: make_script(fakes, rolls, job),
        )

        def read_enqueued() -> list[Any]:
            due = [second for second in enqueued if second <= bench.clock.monotonic()]
            for second in due:
                enqueued.remove(second)
            return [fakes.user_proposal(learning_rate=(second + 1) / 1000) for second in due]

        for incident in happened:
            run_until(bench, fakes, incident, read_enqueued=read_enqueued)
            assert bench.executor.max_running <= parallel
            assert len(bench.recorder.ends) <= trials
        result = bench.run(read_enqueued=read_enqueued)

        assert [t.number for t in result] == list(range(len(result)))
        assert tuple(bench.recorder.trials.values()) == result
        assert len(bench.recorder.ends) == len(set(bench.recorder.ends)) == trials
        ended = [t for t in result if t.state in COUNTED]
        assert all(t.failure is not None or t.value is not None for t in ended)
        assert all(len(t.measurements) == rolls[t.number % len(rolls)] % 3 + 1 for t in ended)
        waiting = [t.state for t in result if t.state not in COUNTED]
        assert set(waiting) <= {State.QUEUED, State.INTERRUPTED}
        assert has_enqueued or not waiting

    check()


def test_equal_studies_have_equal_events(make_bench: MakeBench, fakes: Any) -> None:
    def run_events(_: int) -> list[Any]:
        bench = make_bench(
            trials=9, parallel=3, script=lambda job: make_script(fakes, [3, 9, 1, 12], job)
        )
        bench.run()
        return bench.recorder.events

    assert run_events(0) == run_events(1)


def test_a_creator_that_fails_at_times_leaves_no_gap_in_the_numbers(
    make_bench: MakeBench, fakes: Any
) -> None:
    class Flaky(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            if len(self.shown) % 3 == 1:
                self.shown.append((history, n))
                raise LocalHPOError("not now")
            return super().propose(history, n)

    bench = make_bench(trials=7, parallel=2, creator=Flaky(most=1))
    failures = 0
    while len(bench.recorder.ends) < 7:
        try:
            bench.run()
        except LocalHPOError:
            failures += 1
    assert failures >= 2
    assert sorted(bench.recorder.ends) == list(range(7))


def test_a_kill_between_queue_and_start_loses_no_proposal(
    make_bench: MakeBench, fakes: Any
) -> None:
    bench = make_bench(trials=2, settings=LoopSettings(poll_s=0.25, concurrent_proposals=False))
    loop = bench.loop()
    bench.recorder.dies_in = 2  # the event that it begins, the trial as queued
    with pytest.raises(fakes.DeadError):
        loop.run()
    assert [t.state for t in bench.recorder.trials.values()] == [State.QUEUED]
    bench.run()
    assert [job.number for job in bench.executor.jobs] == [0, 1]
    assert len(bench.creator.shown) == 2
