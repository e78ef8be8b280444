from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhpo.objective import Objective
from localhpo.scheduler.pruning import LearningCurves, make_pruner
from localhpo.task import PrunerSettings, Task
from localhpo.trial import Measurement, Origin, Proposal, State, Trial

NAN = math.nan
Curve = Sequence[float] | Mapping[int, float]


def a_trial(
    number: int, curve: Curve, state: State = State.COMPLETE, *, begins: float | None = None
) -> Trial:
    """A trial with one value of the loss per second, step by step; another metric beside it."""
    points = curve if isinstance(curve, Mapping) else dict(enumerate(curve))
    begins = 100.0 * number if begins is None else begins
    measurements = [
        m
        for second, (step, value) in enumerate(points.items())
        for m in (
            Measurement(step, "loss", value, begins + second),
            Measurement(step, "accuracy", -value, begins + second),
        )
    ]
    return Trial(
        number, state, Proposal({}, Origin.parse("random")), measurements=tuple(measurements)
    )


def study(*curves: Curve) -> list[Trial]:
    return [a_trial(number, curve) for number, curve in enumerate(curves)]


def prune(name: str, trial: Trial, trials: Sequence[Trial], task: Task) -> str | None:
    pruner = make_pruner(with_(task, name=name))
    assert pruner is not None
    return pruner(trial, trials)


median_stop = partial(prune, "median")
successive_halving = partial(prune, "asha")

FOUR = study([5, 4, 1], [5, 4, 2], [5, 4, 3], [5, 4, 4])


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    made: Task = make_task(pruner=PrunerSettings(name="median"))
    return made


def with_(task: Task, **changes: object) -> Task:
    return replace(task, pruner=replace(task.pruner, **changes))


def test_the_task_names_its_pruner(task: Task) -> None:
    assert make_pruner(with_(task, name="none")) is None
    poor = a_trial(9, [9, 9, 9], State.RUNNING)
    assert "median" in (make_pruner(with_(task, name="median"))(poor, FOUR) or "")
    assert "best 1 of the 5" in (make_pruner(with_(task, name="asha"))(poor, FOUR) or "")


@pytest.mark.parametrize(
    ("curve", "pruned"),
    [
        ([], False),
        ([6], True),
        ([5], False),  # as good as the median
        ([4, 6], False),  # its best counts
        ([5, 4.1], True),
        ([5, 4, 2.6], True),
        ([5, 4, 2.5], False),
        ([5, 4, 3, 3], False),  # nobody came so far
        ([NAN], True),
        ([4, NAN], False),
        ([NAN, 4], False),
        ([-math.inf], True),  # not a value to believe
    ],
)
def test_median_stop(task: Task, curve: list[float], pruned: bool) -> None:
    running = a_trial(9, curve, State.RUNNING)
    assert bool(median_stop(running, [*FOUR, running], task)) is pruned


def test_median_stop_maximizes_too(task: Task) -> None:
    task = replace(task, objectives=(Objective("accuracy", "maximize"),))
    assert median_stop(a_trial(9, [5, 4.1], State.RUNNING), FOUR, task)
    assert not median_stop(a_trial(9, [5, 3.9], State.RUNNING), FOUR, task)


def test_median_stop_says_why(task: Task) -> None:
    assert median_stop(a_trial(9, [5, 4, 2.6], State.RUNNING), FOUR, task) == (
        "its best loss by step 2, 2.6, is worse than the median of 4 other trials by then, 2.5"
    )
    assert "not finite" in (median_stop(a_trial(9, [NAN], State.RUNNING), FOUR, task) or "")


def test_median_stop_waits_for_four_complete_trials(task: Task) -> None:
    running = a_trial(9, [99], State.RUNNING)
    assert not median_stop(running, FOUR[:3], task)
    others = [*FOUR[:3], a_trial(4, [1], State.RUNNING), a_trial(5, [1], State.PRUNED)]
    assert not median_stop(running, others, task)


def test_median_stop_waits_for_the_warm_up(task: Task) -> None:
    task = with_(task, warmup_steps=2)
    assert not median_stop(a_trial(9, [99, 99], State.RUNNING), FOUR, task)
    assert median_stop(a_trial(9, [99, 99, 99], State.RUNNING), FOUR, task)


def test_median_stop_with_steps_of_any_kind(task: Task) -> None:
    """Others reported every 100 steps, this one every 150: the last value by then counts."""
    others = [a_trial(n, {100: 5, 200: 4, 300: 1 + n}) for n in range(4)]
    assert not median_stop(a_trial(9, {150: 5}, State.RUNNING), others, task)
    assert median_stop(a_trial(9, {150: 5.1}, State.RUNNING), others, task)
    assert median_stop(a_trial(9, {150: 5, 300: 3}, State.RUNNING), others, task)
    assert not median_stop(a_trial(9, {50: 99}, State.RUNNING), others, task)  # none had a value
    assert not median_stop(a_trial(9, {400: 99}, State.RUNNING), others, task)


@pytest.mark.parametrize(
    ("earlier", "curve", "pruned"),
    [
        ([], [9], False),  # the first to come goes on
        ([[1]], [9], True),  # of fewer than three, the best goes on
        ([[1]], [1], False),  # ties go on
        ([[2], [3]], [1], False),
        ([[2], [1]], [3], True),
        ([[1], [2], [3], [4], [5]], [1.5], False),  # two of six go on
        ([[1], [2], [3], [4], [5]], [2.5], True),
        ([[1], [2], [3], [4], [5]], [NAN], True),
        ([[NAN], [NAN]], [NAN], False),
        ([[NAN], [NAN]], [1], False),
        ([[2, 2, 2]], [1, 9], False),  # report 2 is no rung
        ([[2, 2, 2]], [1, 9, 3], True),
        ([[2, 2, 2]], [1, 9, 2], False),
        ([[2, 2]], [1, 9, 3], False),  # the other never came to report 3
    ],
)
def test_successive_halving(
    task: Task, earlier: list[list[float]], curve: list[float], pruned: bool
) -> None:
    running = a_trial(9, curve, State.RUNNING)
    assert bool(successive_halving(running, [*study(*earlier), running], task)) is pruned


def test_successive_halving_compares_with_trials_of_every_state(task: Task) -> None:
    running = a_trial(9, [2], State.RUNNING)
    for state in (State.RUNNING, State.PRUNED, State.FAILED, State.COMPLETE):
        assert successive_halving(running, [a_trial(0, [1], state)], task)


def test_successive_halving_decides_once(task: Task) -> None:
    """A trial that went on is not stopped by those that come to the rung after it."""
    running = a_trial(0, [5, 5], State.RUNNING, begins=0.0)
    later = [a_trial(n, [1, 1]) for n in (1, 2, 3)]
    assert not successive_halving(running, later, task)
    assert successive_halving(a_trial(9, [5, 5], State.RUNNING), later, task)


def test_successive_halving_checks_a_rung_that_was_passed_between_polls(task: Task) -> None:
    """Several reports may come between two polls."""
    others = study([1, 1, 1, 1, 1])
    assert successive_halving(a_trial(9, [1, 1, 5, 1, 1], State.RUNNING), others, task)


def test_successive_halving_says_why(task: Task) -> None:
    others = [a_trial(n, {10: 1, 20: 1, 30: 1 + n}) for n in range(5)]
    assert successive_halving(a_trial(9, {10: 1, 20: 1, 30: 7}, State.RUNNING), others, task) == (
        "its loss at report 3 (step 30), 7, is not among the best 2 of the 6 trials so far"
    )


def test_the_warm_up_and_the_factor_move_the_rungs(task: Task) -> None:
    task = with_(task, warmup_steps=1, reduction_factor=2)  # rungs at reports 2, 4, 8
    others = study([1] * 8)
    for reports, pruned in [(1, False), (2, True)]:
        curve = [5.0] * reports
        assert bool(successive_halving(a_trial(9, curve, State.RUNNING), others, task)) is pruned
    assert not successive_halving(a_trial(9, [1, 1, 5], State.RUNNING), others, task)
    assert successive_halving(a_trial(9, [1, 1, 1, 5], State.RUNNING), others, task)


@pytest.mark.parametrize("rule", [median_stop, successive_halving])
def test_pruners_accept_any_curve_and_spare_the_best(
    task: Task, rule: Callable[..., str | None]
) -> None:
    values = st.floats(allow_nan=True, allow_infinity=True, width=16)

    @given(st.lists(st.lists(values, max_size=12), max_size=8), st.lists(values, max_size=12))
    def check(earlier: list[list[float]], curve: list[float]) -> None:
        others = study(*earlier)
        rule(a_trial(9, curve, State.RUNNING), others, task)
        assert rule(a_trial(9, [-1e9] * len(curve), State.RUNNING), others, task) is None

    check()


def test_a_curve_is_read_incrementally(task: Task) -> None:
    curves = LearningCurves(task)
    trial = a_trial(0, [3, NAN, 1, 2], State.RUNNING)
    begun = trial.with_(measurements=trial.measurements[:3])
    assert [p.cost for p in curves.read(begun).points] == [3, math.inf]
    assert curves.read(trial) == LearningCurves(task).read(trial)
    assert curves.read(trial).best == 1
    again = trial.with_(measurements=trial.measurements[:1], restarts=1)
    assert [p.cost for p in curves.read(again).points] == [3]


def test_the_first_value_of_a_step_counts_in_any_order_of_steps(task: Task) -> None:
    reports = [(5, 1.0), (3, 2.0), (5, 9.0), (4, 3.0)]
    measurements = tuple(Measurement(step, "loss", value, 0.0) for step, value in reports)
    curve = LearningCurves(task).read(a_trial(0, []).with_(measurements=measurements))
    assert [(p.step, p.cost) for p in curve.points] == [(5, 1.0), (3, 2.0), (4, 3.0)]
    assert [curve.cost_by(step) for step in (2, 3, 4, 5, 6)] == [None, 2.0, 3.0, 1.0, None]
