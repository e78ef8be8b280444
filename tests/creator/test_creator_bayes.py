"""LocalHPO's own Bayesian optimization: what it finds, and the data that must not break it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from localhpo.creator import History
from localhpo.creator.bo import BayesianOptimizer, SamplePrior, optimizer
from localhpo.creator.bo.acquisition import (
    AcquisitionFunction,
    log_improvement,
    standardize_utilities,
)
from localhpo.errors import SpaceExhaustedError
from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.trial import USER, Proposal, State, Trial

SQUARE = Space([Float("x", -1.0, 1.0), Float("y", -1.0, 1.0)])
BOWL = Space([Float(f"x{n}", -1.0, 1.0) for n in range(4)])
NESTED = Space(
    [
        Categorical("model", ("tree", "net", "line")),
        Int("depth", 1, 8, when={"model": ("tree",)}),
        Categorical("optimizer", ("sgd", "adam"), when={"model": ("net",)}),
        Float("momentum", 0.0, 0.99, when={"optimizer": ("sgd",)}),
        Float("rate", 1e-4, 1.0, log=True),
    ]
)
MILLION = Space([Int("rows", 1, 1_000_000), Int("units", 1, 4096, log=True)])


def bowl(config):
    """A quadratic with its minimum off the center."""
    return sum((value - 0.3 * (-1) ** n) ** 2 for n, value in enumerate(config.values()))


def nested(config):
    """Best is a net with sgd, a momentum of 0.9 and a rate of 1e-2."""
    kind = {"tree": 0.5, "net": 0.0, "line": 1.0}[config["model"]]
    inner = abs(config["momentum"] - 0.9) if "momentum" in config else 0.5
    return kind + inner + abs(np.log10(config["rate"]) + 2.0) / 2.0


def million(config):
    return (config["rows"] / 1e6 - 0.7) ** 2 + (np.log2(config["units"]) - 9.0) ** 2 / 144.0


def run(task, objective, trials, seed=0, priors=(), failed=State.FAILED):
    """Tune by hand, with another instance for each trial."""
    done = []
    for number in range(trials):
        history = History(task, tuple(done), seed, number)
        proposal = optimizer.propose(history, priors)
        value = objective(proposal.config)
        state = failed if value is None else State.COMPLETE
        done.append(Trial(number, state, proposal, values=() if value is None else (float(value),)))
    return done


def best(trials):
    return min(trial.value for trial in trials if trial.value is not None)


def at_random(space, objective, trials, seed):
    rng = np.random.default_rng(seed)
    return min(objective(space.sample(rng)) for _ in range(trials))


def configs(trials):
    return [dict(trial.config) for trial in trials]


def history_of(task, configs, values, states=None, seed=0):
    states = states or [State.COMPLETE] * len(configs)
    trials = tuple(
        Trial(n, state, Proposal(config, USER), values=() if value is None else (value,))
        for n, (config, value, state) in enumerate(zip(configs, values, states, strict=True))
    )
    return History(task, trials, seed, len(trials))


def drawn(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


PROBLEMS = {
    "bowl": (BOWL, bowl, 20, 0.05),
    "conditions": (NESTED, nested, 30, 0.3),
    "a million values": (MILLION, million, 20, 0.01),
}


@pytest.mark.parametrize(("space", "objective", "trials", "good"), PROBLEMS.values(), ids=PROBLEMS)
def test_it_finds_the_optimum_where_random_search_does_not(
    make_task, space, objective, trials, good
):
    task, seeds = make_task(space=space), range(3)
    found = [best(run(task, objective, trials, seed)) for seed in seeds]
    random = [at_random(space, objective, trials, seed) for seed in range(20)]
    assert np.median(found) < good
    assert np.mean(found) < np.mean(random) / 2


def test_the_default_or_the_center_comes_first(make_task):
    named = Space([Float("x", -1.0, 1.0, default=0.25), Float("y", -1.0, 1.0)])
    for space in (named, SQUARE):
        (proposal,) = BayesianOptimizer().propose(History(make_task(space=space), (), 0, 0), 1)
        assert proposal.config == space.default()
        assert proposal.origin == optimizer.ORIGIN
        assert proposal.rationale_by == "computed"


@pytest.mark.parametrize(
    "space",
    [
        Space([Int("depth", 1, 1)]),
        Space([Int("depth", 1, 7)]),
        Space([Ordinal("batch", (8, 16, 32)), Categorical("kind", ("a", "b")), Int("n", 3, 3)]),
        Space([Categorical("kind", ("a", "b")), Int("n", 1, 4, when={"kind": ("a",)})]),
    ],
    ids=["one", "seven", "mixed", "conditions"],
)
def test_a_small_space_is_searched_completely_without_repeats(make_task, space):
    task = make_task(space=space)
    trials = run(task, lambda config: len(str(config)), space.cardinality)
    assert len({space.key(trial.config) for trial in trials}) == space.cardinality
    with pytest.raises(SpaceExhaustedError):
        BayesianOptimizer().propose(History(task, tuple(trials), 0, len(trials)), 1)


def test_more_trials_than_good_configurations_are_all_new(make_task):
    """More trials than there are good configurations: every one of them is new."""
    space = Space([Int(f"x{n}", 1, 5) for n in range(5)])
    task = make_task(space=space)
    trials = run(task, lambda config: sum((v - 2) ** 2 for v in config.values()), 30)
    assert len({space.key(trial.config) for trial in trials}) == 30
    assert best(trials) == 0.0


def test_failures_lower_the_acquisition_value_near_them(make_task):
    task = make_task(space=SQUARE)
    ran = [{"x": x, "y": y} for x in (-0.8, 0.0, 0.6) for y in (-0.6, 0.6)]
    values = [float(bowl(config)) for config in ran]
    lost = [{"x": 0.9, "y": y} for y in (-0.1, 0.0, 0.1)]
    near = np.array([SQUARE.encode({"x": 0.88, "y": 0.05})])

    def value(failed):
        states = [State.COMPLETE] * len(ran) + [State.FAILED] * len(failed)
        history = history_of(task, ran + failed, values + [None] * len(failed), states)
        return AcquisitionFunction(history).evaluate(near)[0]

    assert value(lost) < value([])
    assert value(lost[1:2]) < value([])


@pytest.mark.parametrize("state", [State.FAILED, State.INFEASIBLE])
def test_it_avoids_a_region_where_nothing_runs(make_task, state):
    """Larger is better until memory is exhausted; the loop gives up after 20 refusals in a row."""
    space = Space(
        [Int("batch", 8, 1024, log=True), Float("rate", 1e-4, 1.0, log=True), Int("layers", 1, 12)]
    )

    def loss_if_it_runs(config):
        if config["batch"] * config["layers"] >= 1200:
            return None
        away = np.log10(config["rate"]) + 2.0
        return away**2 - np.log2(config["batch"]) - config["layers"] / 2

    for seed in range(2):
        trials = run(make_task(space=space), loss_if_it_runs, 30, seed, failed=state)
        ran = "".join("." if trial.value is None else "x" for trial in trials)
        assert max(map(len, ran.split("x"))) < 16


def test_no_value_is_made_up_for_a_failure(make_task):
    """Failures far away do not change the acquisition value."""
    task = make_task(space=SQUARE)
    ok = drawn(SQUARE, 6)
    values = [float(bowl(config)) for config in ok]
    states = [State.COMPLETE] * 6 + [State.FAILED] * 2
    failed = [{"x": 1.0, "y": 1.0}, {"x": 1.0, "y": 0.98}]
    before = AcquisitionFunction(history_of(task, ok, values))
    after = AcquisitionFunction(history_of(task, ok + failed, [*values, None, None], states))
    asked = np.array([SQUARE.encode({"x": -0.9, "y": y}) for y in (-0.9, -0.5)])
    np.testing.assert_allclose(before.evaluate(asked), after.evaluate(asked), atol=0.1)


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.INTERRUPTED])
def test_pending_trials_are_taken_into_account(make_task, state):
    task, known = make_task(space=BOWL), drawn(BOWL, 6)
    values = [float(bowl(config)) for config in known]
    history = history_of(task, known, values)
    (alone,) = BayesianOptimizer().propose(history, 1)
    running = dataclasses.replace(
        history,
        trials=(*history.trials, Trial(6, state, alone)),
    )
    (other,) = BayesianOptimizer().propose(running, 1)
    assert BOWL.distance(alone.config, other.config) > 0.02


def test_parallel_proposals_lie_apart(make_task):
    for count in (0, 6):
        known = drawn(BOWL, count)
        history = history_of(make_task(space=BOWL), known, [float(bowl(c)) for c in known])
        made = [proposal.config for proposal in BayesianOptimizer().propose(history, 4)]
        gaps = [BOWL.distance(a, b) for i, a in enumerate(made) for b in made[:i]]
        assert min(gaps) > 0.02


def test_maximizing_is_minimizing_the_negative(make_task):
    down, up = (
        make_task(space=BOWL),
        make_task(space=BOWL, objectives=(Objective("loss", "maximize"),)),
    )
    a = run(down, bowl, 10, seed=1)
    b = run(up, lambda config: -bowl(config), 10, seed=1)
    assert configs(a) == configs(b)


def test_the_units_of_the_value_do_not_matter(make_task):
    task = make_task(space=SQUARE)
    a = run(task, bowl, 8)
    b = run(task, lambda config: 1024.0 * bowl(config), 8)
    assert configs(a) == configs(b)


@pytest.mark.parametrize(("space", "objective"), [(BOWL, bowl), (NESTED, nested)])
def test_another_instance_continues_a_study_and_another_seed_does_not(make_task, space, objective):
    task = make_task(space=space)
    a, b, c = (configs(run(task, objective, 8, seed)) for seed in (3, 3, 4))
    assert a == b != c


VALUES = {
    "a single trial": [1.0],
    "two alike": [1.0, 1.0],
    "all equal": [0.1] * 7,
    "all but one equal": [1.0] * 6 + [2.0],
    "a diverged run": [1e18, 0.3, 0.2, 0.5],
    "a run too good to be true": [-1e18, 0.3, 0.2, 0.5],
    "tiny": [3e-15, 1e-15, 2e-15],
    "subnormal": [5e-324, 0.0, 1e-323],
    "huge": [1e300, -1e300, 0.0, 1.0],
    "hardly differing": [1.0, 1.0 + 2e-16, 1.0 + 4e-16],
}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_extreme_values_do_not_break_it(make_task, values, direction):
    task = make_task(space=SQUARE, objectives=(Objective("loss", direction),))
    known = drawn(SQUARE, len(values))
    proposals = BayesianOptimizer().propose(history_of(task, known, values), 2)
    keys = {SQUARE.key(config) for config in [*known, *(p.config for p in proposals)]}
    assert len(keys) == len(values) + 2


def test_a_diverged_run_does_not_hide_differences_between_good_ones(make_task):
    task = make_task(space=SQUARE)

    def cliff(config):
        return 1e9 if config["x"] < -0.5 else bowl(config)

    assert np.mean([best(run(task, cliff, 20, seed)) for seed in range(3)]) < 0.02


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_standardized_utilities_keep_their_order(count):
    utilities = np.random.default_rng(count).normal(size=count) ** 3
    standardized = standardize_utilities(utilities)
    assert (np.argsort(standardized) == np.argsort(utilities)).all()
    assert abs(standardized.mean()) < 1e-9
    assert standardized.std() == pytest.approx(1.0 if count > 1 else 0.0)


def test_thousands_of_trials_take_no_longer_than_hundreds(make_task):
    """Most of them are left out of the process, but never the best, and none is repeated."""
    known = drawn(BOWL, 3000)
    history = history_of(make_task(space=BOWL), known, [float(bowl(config)) for config in known])
    (proposal,) = BayesianOptimizer().propose(history, 1)
    assert BOWL.key(proposal.config) not in {BOWL.key(config) for config in known}
    assert bowl(proposal.config) < np.quantile([trial.value for trial in history.trials], 0.02)
    assert proposal.seconds < 20.0


def test_a_history_with_every_state_is_accepted(make_task):
    states = [state for state in State for _ in range(3)]
    with_value = (State.COMPLETE, State.PRUNED)
    values = [0.1 * n if state in with_value else None for n, state in enumerate(states)]
    history = history_of(make_task(space=NESTED), drawn(NESTED, len(states)), values, states)
    assert len(BayesianOptimizer().propose(history, 3)) == 3


def test_a_history_of_failures_alone_is_accepted(make_task):
    known = drawn(NESTED, 8)
    history = history_of(make_task(space=NESTED), known, [None] * 8, [State.FAILED] * 8)
    (proposal,) = BayesianOptimizer().propose(history, 1)
    NESTED.validate(proposal.config)
    assert "proposed before any trial had a value" in proposal.rationale


def prior_around(space, where, spread=0.08):
    """Return the prior of samples near a point of the unit cube."""
    rng = np.random.default_rng(0)
    near = np.clip(rng.normal(where, spread, (24, len(space.columns))), 0.0, 1.0)
    return SamplePrior(
        space, [space.decode(point) for point in near], source="llm", trust=0.7,
        description="the model",
    )  # fmt: skip


RIGHT, WRONG = (0.65, 0.35, 0.65, 0.35), (0.1, 0.9, 0.1, 0.9)
"""The minimum of the bowl in the unit cube, and a place far from it."""


def test_a_right_prior_speeds_it_up(make_task):
    task, seeds = make_task(space=BOWL), range(4)
    guided = [best(run(task, bowl, 6, seed, [prior_around(BOWL, RIGHT)])) for seed in seeds]
    alone = [best(run(task, bowl, 6, seed)) for seed in seeds]
    assert np.mean(guided) < 0.9 * np.mean(alone)


def test_a_wrong_prior_is_overcome(make_task):
    task, seeds = make_task(space=BOWL), range(4)
    misguided = [run(task, bowl, 24, seed, [prior_around(BOWL, WRONG)]) for seed in seeds]
    random = [at_random(BOWL, bowl, 24, seed) for seed in range(20)]
    assert np.mean([best(trials) for trials in misguided]) < np.mean(random) / 2


def test_the_weight_of_the_prior_follows_the_trials(make_task):
    known = drawn(BOWL, 15)
    history = history_of(make_task(space=BOWL), known, [float(bowl(config)) for config in known])
    right, wrong = (
        AcquisitionFunction(history, [prior_around(BOWL, where)]).weights[0]
        for where in (RIGHT, WRONG)
    )
    assert right > 0.5 > wrong
    assert AcquisitionFunction(history).weights.size == 0


def test_the_probability_of_the_prior_is_larger_where_trials_agree_with_it(make_task):
    known = drawn(BOWL, 9)
    history = history_of(make_task(space=BOWL), known, [float(bowl(config)) for config in known])

    def share_guided(where):
        """Return how often the prior takes part in the next proposal, over 20 seeds."""
        priors = [prior_around(BOWL, where)]
        suggestions = [
            optimizer.suggest(dataclasses.replace(history, seed=seed), priors) for seed in range(20)
        ]
        return sum(bool(made.priors) for made in suggestions)

    assert share_guided(RIGHT) > share_guided(WRONG)


def test_of_a_right_and_a_wrong_prior_the_right_one_takes_part_more_often(make_task):
    known = drawn(BOWL, 9)
    history = history_of(make_task(space=BOWL), known, [float(bowl(config)) for config in known])
    right, wrong = prior_around(BOWL, RIGHT), prior_around(BOWL, WRONG)

    def again(seed):
        return dataclasses.replace(history, seed=seed)

    used = [
        prior
        for seed in range(20)
        for prior in optimizer.suggest(
            dataclasses.replace(history, seed=seed), [wrong, right]
        ).priors
    ]
    assert used.count(right) > used.count(wrong)


LOG_IMPROVEMENTS = [
    # z and log(density(z) + z * distribution(z)), computed with 60 digits (mpmath)
    (-1000.0, -500014.7344520912),
    (-40.0, -808.29856835662),
    (-10.0, -55.55312203612236),
    (-4.0001, -11.84950483050974),
    (-4.0, -11.84906157755066),
    (-3.9999, -11.84861833376136),
    (-1.0, -2.485121025712641),
    (0.0, -0.9189385332046727),
    (1.0, 0.08002621884930694),
    (4.0, 1.386296147432903),
    (40.0, 3.688879454113936),
]


@pytest.mark.parametrize("deviation", [1e-6, 1.0, 30.0])
@pytest.mark.parametrize(("z", "expected"), LOG_IMPROVEMENTS)
def test_the_log_improvement_is_exact_far_into_the_tail(z, expected, deviation):
    best_so_far = 0.25
    mean = np.array([best_so_far + z * deviation])
    (value,) = log_improvement(mean, np.array([deviation]), best_so_far)
    assert value == pytest.approx(expected + np.log(deviation), rel=1e-7)


def test_the_log_improvement_grows_with_the_mean_everywhere():
    means = np.linspace(-1e6, 10.0, 200_001)
    values = log_improvement(means, np.ones_like(means), 0.0)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0.0).all()
