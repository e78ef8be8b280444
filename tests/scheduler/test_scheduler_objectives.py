"""Several objectives and constraints in a study, and those that LocalHPO measures itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from localhpo.objective import Constraint, Objective
from localhpo.scheduler.events import describe_end
from localhpo.scheduler.proposal_queue import find_reference
from localhpo.task import Resources, Task
from localhpo.trial import State, Trial, Usage

LOSS, GPU_S, WALL_S = Objective("loss"), Objective("gpu_s"), Objective("wall_s")
ONE_GPU = Resources(gpus=1)
MakeTask = Callable[..., Task]


def test_a_study_with_two_objectives_and_a_constraint(
    make_bench: Callable[..., Any], make_task: MakeTask, fakes: Any
) -> None:
    """Trial 1 is the best by loss and too slow; 0 and 2 trade loss for time."""
    snapshots: list[Any] = []

    class Watcher:
        def on_event(self, event: Any) -> None:
            pass

        def on_change(self, snapshot: Any) -> None:
            snapshots.append(snapshot)

    scripts = [(10.0, 2.0), (60.0, 0.0), (20.0, 1.0), (30.0, 3.0)]  # seconds, loss
    task = make_task(objectives=(LOSS, WALL_S), constraints=(Constraint("wall_s", max=50.0),))
    bench = make_bench(
        task=task,
        trials=4,
        script=lambda job: fakes.TrialScript(
            duration_s=scripts[job.number][0], curve=(scripts[job.number][1],)
        ),
        observers=[Watcher()],
    )
    trials = bench.run()
    assert [t.values for t in trials] == [(2.0, 10.0), (0.0, 60.0), (1.0, 20.0), (3.0, 30.0)]
    assert [t.violations for t in trials] == [(-40.0,), (10.0,), (-30.0,), (-20.0,)]
    assert [t.feasible for t in trials] == [True, False, True, True]
    assert [t.number for t in snapshots[-1].best_trials] == [0, 2]
    assert snapshots[-1].best_trial is None
    assert bench.recorder.messages("finished") == [
        "loss 2, wall_s 10, among the best so far",
        "loss 0, wall_s 60; not feasible: wall_s <= 50 must hold",
        "loss 1, wall_s 20, among the best so far",
        "loss 3, wall_s 30",
    ]


def test_the_end_of_a_trial_with_an_unknown_constraint(
    make_task: MakeTask, make_trial: Callable[..., Trial]
) -> None:
    task = make_task(constraints=(Constraint("latency_ms", max=200.0),))
    trial = make_trial(0, {}, State.PRUNED, value=0.5).with_(violations=(math.nan,))
    assert describe_end(trial, [trial], task) == "loss 0.5; latency_ms unknown"


def test_prefetched_proposals_are_stale_by_a_single_objective_only(
    make_trial: Callable[..., Trial],
) -> None:
    trials = [make_trial(0, {}, value=2.0), make_trial(1, {}, value=1.0)]
    assert find_reference(trials, (LOSS,)) is trials[1]
    pairs = [trial.with_(values=(1.0, 2.0), usage=Usage()) for trial in trials]
    assert find_reference(pairs, (LOSS, WALL_S)) is None
