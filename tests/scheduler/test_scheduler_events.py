from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from localhpo.scheduler.events import Snapshot
from localhpo.scheduler.loop import LoopSettings
from localhpo.store.records import Event
from localhpo.trial import State, Trial

MakeBench = Callable[..., Any]


def states(trials: tuple[Trial, ...]) -> list[State]:
    return [trial.state for trial in trials]


class Watcher:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.snapshots: list[Snapshot] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_change(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


class Faulty:
    def on_event(self, event: Event) -> None:
        raise RuntimeError("no terminal")

    def on_change(self, snapshot: Snapshot) -> None:
        raise RuntimeError("no terminal")


def test_observers_receive_each_event_and_change(make_bench: MakeBench, fakes: Any) -> None:
    watcher = Watcher()
    script = fakes.TrialScript(duration_s=10, curve=[3.0, 2.0])
    bench = make_bench(trials=3, script=lambda job: script, observers=[watcher])
    bench.run()
    assert [(e.kind, e.trial) for e in watcher.events if e.trial == 1] == [
        ("proposed", 1),
        ("started", 1),
        ("finished", 1),
    ]
    assert [(e.kind, e.message) for e in watcher.events] == [
        (e.kind, e.message) for e in bench.recorder.events
    ]
    assert watcher.events[3].message == "loss 2, the best so far"

    midway = next(
        s for s in watcher.snapshots if s.running and s.best_trials and s.running[0].latest
    )
    (running,) = midway.running
    assert (running.trial.number, running.latest and running.latest.value) == (1, 3.0)
    assert 5.0 <= running.elapsed_s <= 5.5
    assert (midway.trials_left, midway.best_trial and midway.best_trial.number) == (2, 0)
    assert midway.estimated_s == pytest.approx(15.0, abs=0.5)
    assert (midway.seconds_left, midway.stop_reason, midway.proposing) == (None, "", False)

    last = watcher.snapshots[-1]
    assert (last.trials_left, last.estimated_s, last.running) == (0, 0.0, ())
    assert states(last.trials) == [State.COMPLETE] * 3


def test_a_quiet_study_has_about_one_snapshot_a_second(make_bench: MakeBench, fakes: Any) -> None:
    watcher = Watcher()
    script = fakes.TrialScript(duration_s=100)
    make_bench(trials=1, script=lambda job: script, observers=[watcher]).run()
    assert 95 <= len(watcher.snapshots) <= 110


def test_an_observer_that_raises_is_reported_once(make_bench: MakeBench) -> None:
    watcher = Watcher()
    bench = make_bench(trials=3, observers=[Faulty(), watcher])
    assert states(bench.run()) == [State.COMPLETE] * 3
    assert bench.recorder.messages("warning") == [
        "Faulty raised RuntimeError('no terminal'); the study goes on"
    ]
    assert len(watcher.snapshots) > 3


def test_a_locked_database_is_reported_once_and_delays_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(trials=3)
    bench.recorder.locked = True
    assert states(bench.run()) == [State.COMPLETE] * 3
    assert len(bench.recorder.messages("note")) == 1
    assert bench.clock.monotonic() < 33


def test_a_running_trial_is_flushed_about_once_a_second(make_bench: MakeBench, fakes: Any) -> None:
    script = fakes.TrialScript(duration_s=100, curve=[1.0] * 1000)
    bench = make_bench(trials=2, script=lambda job: script)
    bench.run()
    assert 195 <= bench.recorder.flushes <= 215


def test_the_end_of_a_trial_is_flushed_at_once(make_bench: MakeBench) -> None:
    settings = LoopSettings(poll_s=0.25, idle_s=1000.0, concurrent_proposals=False)
    bench = make_bench(trials=3, settings=settings)
    bench.run()
    assert bench.recorder.flushes == 5  # the beginning, three ends, the end
