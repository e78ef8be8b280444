"""Statistics against values by hand, of scipy, and of the literature."""

import math

import numpy as np
import pytest
from scipy import stats

from scripts.benchmarks import statistics


@pytest.mark.parametrize(
    ("scores", "direction", "best"),
    [
        ([3.0, 1.0, 2.0, 0.5], "minimize", [3.0, 1.0, 1.0, 0.5]),
        ([3.0, 1.0, 4.0, 0.5], "maximize", [3.0, 3.0, 4.0, 4.0]),
        ([None, 2.0, None, 1.0], "minimize", [math.nan, 2.0, 2.0, 1.0]),
        ([None, math.nan, -math.inf, 1.0], "maximize", [math.nan, math.nan, math.nan, 1.0]),
        ([2.0], "minimize", [2.0, 2.0, 2.0, 2.0]),  # the space was used up
        ([5.0, 4.0, 3.0, 2.0, 1.0], "minimize", [5.0, 4.0, 3.0, 2.0]),
    ],
)
def test_the_best_so_far(scores, direction, best):
    np.testing.assert_array_equal(statistics.best_so_far(scores, direction, 4), best)


@pytest.mark.parametrize(
    ("y", "best", "median", "regret"),
    [
        (0.9, 0.9, 0.5, 0.0),
        (0.7, 0.9, 0.5, 0.5),
        (0.5, 0.9, 0.5, 1.0),
        (0.1, 0.9, 0.5, 1.0),  # worse than a middling one is no worse
        (2.0, 1.0, 5.0, 0.25),  # minimized: the best is the smaller
        (0.95, 0.9, 0.5, 0.0),  # better than the best known
        (math.nan, 0.9, 0.5, 1.0),  # no score yet
        (0.4, 0.4, 0.4, 0.0),  # every configuration is the same
        (0.3, 0.4, 0.4, 1.0),
    ],
)
def test_regret(y, best, median, regret):
    assert statistics.regret(np.array([y]), best, median)[0] == pytest.approx(regret)


@pytest.mark.parametrize(
    ("trials", "columns"),
    [(1, (1,)), (3, (1, 3)), (8, (1, 3, 5, 8)), (10, (1, 3, 5, 10)), (30, (1, 3, 5, 10, 30))],
)
def test_columns(trials, columns):
    assert statistics.report_trials(trials) == columns


def test_a_column_by_hand():
    # Two Creators, two problems, three seeds, one trial.
    regrets = np.array([[[0.0, 0.2, 0.4], [0.4, 0.6, 0.8]], [[0.1, 0.1, 0.4], [1.0, 1.0, 1.0]]])[
        ..., None
    ]
    column = statistics.summarize_column(regrets, 1)
    first, second = column.entries
    assert first.mean == pytest.approx(0.4)
    assert first.error_seeds == pytest.approx(0.2 / math.sqrt(3))  # seed means .2, .4, .6
    assert first.error_problems == pytest.approx(math.sqrt(0.08) / math.sqrt(2))  # .2 and .6
    assert second.mean == pytest.approx(0.6)
    # A tie on the first problem (.2 and .2), the first one wins the second.
    assert (first.rank, second.rank) == (1.25, 1.75)
    (test,) = column.paired_tests
    assert (test.wins, test.ties, test.losses) == (1, 1, 0)
    assert test.p_value == 1.0  # one problem left: nothing can be said


def test_one_creator_one_seed_one_problem_has_no_errors():
    column = statistics.summarize_column(np.array([[[[0.5]]]]), 1)
    assert column.entries == (statistics.RegretSummary(0.5, None, None, 1.0),)
    assert column.paired_tests == ()
    assert column.critical_difference is None


def test_a_duel_is_wilcoxons_test():
    rng = np.random.default_rng(0)
    first, other = rng.random(40), rng.random(40) + 0.2
    test = statistics.compare_pair(first, other)
    assert test.p_value == pytest.approx(stats.wilcoxon(first, other).pvalue)
    assert test.wins == (first < other).sum()
    assert test.wins + test.ties + test.losses == 40


def test_a_duel_with_itself_tells_nothing():
    values = np.linspace(0, 1, 7)
    assert statistics.compare_pair(values, values + 1e-12) == statistics.PairedTest(None, 0, 7, 0)


@pytest.mark.parametrize(
    ("creators", "q"),
    # q at 5 % as Demsar (2006), table 5, has it.
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)],
)
def test_the_critical_difference_is_nemenyis(creators, q):
    problems = 14
    expected = q * math.sqrt(creators * (creators + 1) / (6 * problems))
    assert statistics.critical_difference(creators, problems) == pytest.approx(expected, abs=2e-3)


def test_ranks_share_ties():
    by_problem = np.array([[0.1, 0.5], [0.1, 0.2], [0.3, 0.5]])
    assert statistics.mean_ranks(by_problem).tolist() == [2.0, 1.25, 2.75]
