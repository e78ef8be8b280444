"""One study of a comparison: what is recorded, of good Creators and of bad ones."""

import dataclasses
import math

import pytest

from localhpo.bench import creators, simulation
from localhpo.errors import ModelError
from localhpo.trial import Proposal


def run(problem, name="random", seed=0, trials=6):
    creator = creators.make(creators.parse(name), problem.task, None)
    return simulation.run(problem, creator, seed=seed, trials=trials)


class Repeating:
    """A Creator without laws: it proposes what it is given, in turn."""

    name = "repeating"

    def __init__(self, *configs):
        self.configs = list(configs)

    def propose(self, history, n):
        note = "stands in for the model: x"
        return [Proposal(self.configs[history.next_number], "made", note=note)]

    def close(self):
        pass


def test_a_study_is_recorded_trial_by_trial(make_problem):
    problem = make_problem()
    rows = run(problem, "center+tpe", trials=8)
    assert [row.number for row in rows] == list(range(8))
    assert {row.state for row in rows} == {"complete"}
    assert [row.origin for row in rows] == ["default", *["engine:tpe"] * 7]
    assert rows[0].config == problem.space.text(problem.space.default())
    assert rows[0].score == problem.evaluate(problem.space.default())
    assert all(row.seconds > 0 for row in rows)
    assert not any(row.repeated or row.invalid for row in rows)


def test_the_same_seed_is_the_same_luck(make_problem):
    def plain(rows):
        return [dataclasses.replace(row, seconds=0.0) for row in rows]

    problem = make_problem()
    assert plain(run(problem, seed=3)) == plain(run(problem, seed=3))
    assert plain(run(problem, seed=3)) != plain(run(problem, seed=4))
    other = make_problem(name="other")
    assert plain(run(other, seed=3)) != plain(run(problem, seed=3))


def test_a_failure_has_no_score_and_ends_nothing(make_problem):
    rows = run(make_problem(lambda x, n: math.nan), trials=6)
    assert [(row.state, row.score) for row in rows] == [("failed", None)] * 6


def test_a_space_that_is_used_up_ends_a_study(make_problem):
    problem = make_problem()
    small = dataclasses.replace(
        problem, task=dataclasses.replace(problem.task, space=type(problem.space)([
            dataclasses.replace(problem.space["x"], low=0.5, high=0.5),
            dataclasses.replace(problem.space["n"], low=1, high=3),
        ]))
    )  # fmt: skip
    assert len(run(small, trials=9)) == 3


def test_what_breaks_a_law_is_counted(make_problem):
    good = {"x": 0.5, "n": 2}
    creator = Repeating(good, good, {"x": 0.123456789, "n": 2}, {"x": 0.25, "n": 3})
    rows = simulation.run(make_problem(), creator, seed=0, trials=4)
    assert [row.repeated for row in rows] == [False, True, False, False]
    assert [row.invalid for row in rows] == [False, False, True, False]
    assert [row.state for row in rows] == ["complete", "complete", "failed", "complete"]


def test_a_creator_that_fails_is_an_error(make_problem):
    class Down(Repeating):
        def propose(self, history, n):
            raise ModelError("down")

    with pytest.raises(ModelError, match="down"):
        simulation.run(make_problem(), Down(), seed=0, trials=3)


def test_the_overhead_is_small(make_problem):
    """Of loop and record, beside proposing: about 1 ms, and never more than 15."""
    import time

    run(make_problem())
    started = time.process_time()
    rows = run(make_problem(), trials=60)
    proposing = sum(row.seconds for row in rows)
    assert (time.process_time() - started - proposing) / 60 < 0.015
