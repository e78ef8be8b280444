"""From results to a comparison: which results count, regrets, proposals, the figure."""

import dataclasses
import json
import math

import numpy as np
import pytest

from localhpo.errors import InputError
from scripts.benchmarks import comparison, figures
from scripts.benchmarks.problems.suites import Suite
from scripts.benchmarks.results import ProblemRow, Results, TrialRow, UnitKey, UnitRow

SUITE = Suite("small", "Two <made> problems", "own", ("up", "down"))
ROW = TrialRow(0, "complete", 0.0, "{}", "tpe", 1, 0.5, 0, 0, False, False, "")


@pytest.fixture
def results(tmp_path):
    results = Results(tmp_path)
    results.add(problems=[ProblemRow("up", "u" * 64, "maximize", 10.0, 0.0)])
    results.add(problems=[ProblemRow("down", "d" * 64, "minimize", 0.0, 10.0)])
    return results


def unit(creator, problem, seed, scores, digest="one", budget=3, **changes):
    key = UnitKey(problem, problem[0] * 64, creator, digest, seed, budget)
    trials = tuple(
        dataclasses.replace(ROW, number=i, value=s, **changes) for i, s in enumerate(scores)
    )
    return UnitRow(key, "", 2.0, trials)


def compare(results, creators=None, trials=None):
    selection = comparison.select_latest(SUITE, results, creators=creators, trials=trials)
    return comparison.compare(selection, results)


def test_regrets_by_hand(results):
    results.add(
        [
            unit("a", "up", 0, [0.0, 5.0, 2.0]),
            unit("a", "down", 0, [10.0, 4.0, 4.0]),
            unit("b", "up", 0, [None, 1.0, 10.0]),
            unit("b", "down", 0, [30.0, 20.0, 10.0]),
        ]
    )
    made = compare(results)
    assert (made.creators, made.problems, made.seeds) == (("a", "b"), ("up", "down"), (0,))
    np.testing.assert_allclose(made.regrets[0, :, 0], [[1.0, 0.5, 0.5], [1.0, 0.4, 0.4]])
    np.testing.assert_allclose(made.regrets[1, :, 0], [[1.0, 0.9, 0.0], [1.0, 1.0, 1.0]])
    assert [column.trial for column in made.columns] == [1, 3]
    assert made.columns[-1].entries[0].mean == pytest.approx(0.45)
    assert (made.columns[-1].paired_tests[0].wins, made.columns[-1].paired_tests[0].losses) == (
        1,
        1,
    )


def test_the_best_is_what_those_that_are_compared_found(results):
    results.add([unit("a", "up", 0, [10.0, 5.0, 5.0]), unit("a", "down", 0, [5.0, 5.0, 5.0])])
    assert compare(results).regrets[0, 0, 0].tolist() == [0.0, 0.0, 0.0]
    results.add([unit("z", "up", 0, [5.0, 5.0, 20.0]), unit("z", "down", 0, [5.0, 5.0, 5.0])])
    assert compare(results, ["a", "z"]).regrets[0, 0, 0].tolist() == [0.5, 0.5, 0.5]
    # The same comparison gives the same figures, whatever else was run.
    assert compare(results, ["a"]).regrets[0, 0, 0].tolist() == [0.0, 0.0, 0.0]


def test_only_the_latest_version_counts(results):
    results.add([unit("a", "up", 0, [0.0] * 3, "old"), unit("a", "down", 0, [9.0] * 3, "old")])
    results.add([unit("a", "up", 0, [10.0] * 3, "new"), unit("a", "down", 0, [0.0] * 3, "new")])
    assert compare(results).regrets.max() == 0.0


def test_a_new_definition_of_a_problem_leaves_old_results_out(results):
    results.add([unit("a", "up", 0, [0.0] * 3), unit("a", "down", 0, [0.0] * 3)])
    results.add(problems=[ProblemRow("down", "e" * 64, "minimize", 0.0, 1.0)])
    assert compare(results).problems == ("up",)


def test_only_complete_seeds_count(results):
    results.add([unit(c, p, 0, [1.0] * 3) for c in "ab" for p in SUITE.problems])
    results.add([unit("a", p, 1, [1.0] * 3) for p in SUITE.problems])
    results.add([unit("b", "up", 1, [1.0] * 3)])
    assert compare(results).seeds == (0,)
    assert compare(results, ["a"]).seeds == (0, 1)
    results.add([unit("b", "down", 1, [1.0] * 3)])
    assert compare(results).seeds == (0, 1)


def test_what_there_is_of_a_suite_that_is_not_done(results):
    results.add([unit(c, "up", 0, [1.0] * 3) for c in "ab"])
    made = compare(results)
    assert made.problems == ("up",)
    assert len(made.suite.problems) == 2


def test_the_budget_with_most_results_or_the_one_asked_for(results):
    results.add([unit("a", p, s, [1.0] * 3) for p in SUITE.problems for s in (0, 1)])
    results.add([unit("a", p, 0, [1.0] * 5, budget=5) for p in SUITE.problems])
    assert compare(results).trials == 3
    assert compare(results, trials=5).trials == 5
    with pytest.raises(InputError, match="with 3, 5 trials, none with 4"):
        compare(results, trials=4)


def test_no_results_say_how_to_get_some(results):
    with pytest.raises(InputError, match="no results on small") as caught:
        compare(results)
    assert caught.value.hint == "`python -m scripts.benchmarks run small` makes some"
    results.add([unit("a", "up", 0, [1.0] * 3), unit("b", "down", 0, [1.0] * 3)])
    with pytest.raises(InputError, match="no problem of small has results of all of a, b"):
        compare(results)


def test_statistics_of_proposals(results):
    results.add(
        [
            unit("a", "up", 0, [1.0] * 3, tries=2, seconds=0.1, prompt_tokens=30),
            unit("a", "down", 0, [None], state="failed", repeated=True, invalid=True, seconds=0.9,
                 note="fallback for the model: down", origin="gp"),
        ]
    )  # fmt: skip
    (proposals,) = compare(results).proposals
    assert proposals.trials == 4
    assert proposals.redrawn == pytest.approx(3 / 7)
    assert (
        proposals.failed == proposals.repeated == proposals.invalid == proposals.fallbacks == 0.25
    )
    assert proposals.origins == {"tpe": 3, "gp": 1}
    assert proposals.seconds == pytest.approx(0.1)
    assert proposals.tokens == pytest.approx(22.5)
    assert proposals.wall_s == 2.0


@pytest.fixture
def made(results):
    rng = np.random.default_rng(0)
    names = ["hybrid", "gp", "hybrid@/a/very/long/path/to/a/model:anonymous", *"cdefghij"]
    results.add(
        [
            unit(name, problem, seed, (10 * rng.random(3)).tolist())
            for name in names
            for problem in SUITE.problems
            for seed in (0, 1)
        ]
    )
    return compare(results)


def test_the_record_is_json_and_says_everything(made):
    record = json.loads(json.dumps(comparison.to_record(made), allow_nan=False))
    assert record["creators"] == list(made.creators)
    assert record["seeds"] == [0, 1]
    last = record["columns"][-1]
    assert last["creators"]["gp"]["mean"] == pytest.approx(record["curves"]["gp"][-1], abs=1e-5)
    assert set(last["hybrid against"]) == set(made.creators) - {"hybrid"}
    assert set(record["by_problem"]) == set(SUITE.problems)
    assert record["best_score"] == {}


def test_raw_scores_where_they_compare(made):
    suite = dataclasses.replace(SUITE, raw_values=True)
    record = comparison.to_record(dataclasses.replace(made, suite=suite))
    expected = made.raw[1, :, :, -1].mean()
    assert record["best_score"]["gp"]["3"] == pytest.approx(expected)


def test_the_figure_draws_the_regrets_and_ranks(made, tmp_path):
    drawn = figures.draw_comparison(made)
    lines = {
        trace.name: list(trace.y) for trace in drawn.data if trace.type == "scatter" and trace.name
    }
    means = made.regrets.mean(axis=(1, 2))
    assert list(lines) == list(made.creators)
    for c, name in enumerate(made.creators):
        assert lines[name] == pytest.approx(means[c].tolist())
    (dots,) = (trace for trace in drawn.data if trace.xaxis == "x2")
    ranks = dict(
        zip(made.creators, (entry.rank for entry in made.columns[-1].entries), strict=True)
    )
    assert dict(zip(dots.y, dots.x, strict=True)) == ranks
    assert "critical difference" in drawn.layout.title.text


def test_a_figure_is_written_the_same_each_time_and_needs_no_network(made, tmp_path):
    for name in ("first", "second"):
        figures.save(figures.draw_comparison(made), tmp_path / name / "small.html")
    page = (tmp_path / "first" / "small.html").read_text()
    assert page == (tmp_path / "second" / "small.html").read_text()
    assert "Two <made> problems" not in page  # escaped
    assert (tmp_path / "first" / "plotly.min.js").is_file()
    assert 'src="http' not in page


@pytest.mark.parametrize("trials", [1, 2, 30, 100])
def test_figures_of_any_length(results, trials):
    falling = [10.0 / (t + 1) for t in range(trials)]
    results.add([unit("a", p, 0, falling, budget=trials) for p in SUITE.problems])
    drawn = figures.draw_comparison(compare(results))
    assert drawn.layout.xaxis.type == ("log" if trials >= 20 else None)
    assert not math.isnan(compare(results).regrets.sum())
