"""One study of a comparison: what is recorded of Creators that keep the contract, and of others."""

import dataclasses
import math

import pytest

from localhpo.errors import CreatorError, ModelError
from localhpo.objective import Objective
from localhpo.trial import Measurement, Origin, Proposal
from scripts.benchmarks import creators, simulation


def run(problem, name="random", seed=0, trials=6):
    creator = creators.make_creator(creators.parse_name(name), problem.task, None)
    return simulation.run_study(problem, creator, seed=seed, trials=trials)


class Repeating:
    """A Creator that breaks its contract: it proposes given configurations, in turn."""

    name = "repeating"
    backend = None

    def __init__(self, *configs):
        self.configs = list(configs)

    def propose(self, history, n):
        note = "fallback for the model: x"
        return [Proposal(self.configs[history.next_number], Origin.parse("made"), note=note)]

    def close(self):
        pass


def test_a_study_is_recorded_trial_by_trial(make_problem):
    problem = make_problem()
    rows = run(problem, "center+tpe", trials=8)
    assert [row.number for row in rows] == list(range(8))
    assert {row.state for row in rows} == {"complete"}
    assert [row.origin for row in rows] == ["default", *["tpe"] * 7]
    assert rows[0].config == problem.space.text(problem.space.default())
    assert rows[0].value == problem.evaluate(problem.space.default())
    assert all(row.seconds > 0 for row in rows)
    assert not any(row.repeated or row.invalid for row in rows)


def test_the_same_seed_gives_the_same_trials(make_problem):
    def plain(rows):
        return [dataclasses.replace(row, seconds=0.0) for row in rows]

    problem = make_problem()
    assert plain(run(problem, seed=3)) == plain(run(problem, seed=3))
    assert plain(run(problem, seed=3)) != plain(run(problem, seed=4))
    other = make_problem(name="other")
    assert plain(run(other, seed=3)) != plain(run(problem, seed=3))


def test_a_failed_trial_has_no_value_and_does_not_end_the_study(make_problem):
    rows = run(make_problem(lambda x, n: math.nan), trials=6)
    assert [(row.state, row.value) for row in rows] == [("failed", None)] * 6


def test_a_study_ends_when_the_whole_space_was_tried(make_problem):
    problem = make_problem()
    small = dataclasses.replace(
        problem, task=dataclasses.replace(problem.task, space=type(problem.space)([
            dataclasses.replace(problem.space["x"], low=0.5, high=0.5),
            dataclasses.replace(problem.space["n"], low=1, high=3),
        ]))
    )  # fmt: skip
    assert len(run(small, trials=9)) == 3


def test_a_creator_that_repeats_itself_is_an_error(make_problem):
    good = {"x": 0.5, "n": 2}
    with pytest.raises(CreatorError, match="must propose new configurations"):
        simulation.run_study(make_problem(), Repeating(good, good), seed=0, trials=4)


def test_a_creator_that_fails_is_an_error(make_problem):
    class Down(Repeating):
        def propose(self, history, n):
            raise ModelError("down")

    with pytest.raises(ModelError, match="down"):
        simulation.run_study(make_problem(), Down(), seed=0, trials=3)


def test_the_overhead_is_small(make_problem):
    """Loop and rows take about 1 ms of a trial, beside proposing, and never more than 15 ms."""
    import time

    run(make_problem())
    started = time.process_time()
    rows = run(make_problem(), trials=60)
    proposing = sum(row.seconds for row in rows)
    assert (time.process_time() - started - proposing) / 60 < 0.015


def test_the_last_finite_test_value_is_kept(make_trial, make_task):
    reports = tuple(
        Measurement(step, name, value, 0.0)
        for step, name, value in (
            (0, "test_f1", 0.0),
            (1, "val_f1", 0.5),
            (1, "test_f1", 0.45),
            (2, "test_f1", math.nan),
        )
    )
    trial = make_trial(0, {"learning_rate": 1e-3, "depth": 1}, value=0.5, measurements=reports)
    for metric, expected in (("val_f1", 0.45), ("f1", 0.45), ("val_loss", None)):
        task = make_task(objectives=(Objective(metric, "maximize"),))
        (row,) = simulation.to_trial_rows([trial], task, {})
        assert row.test == expected
