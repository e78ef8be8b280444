"""Bayesian optimization of our own: what it finds, and what it must not break on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from localhpo.creator import History
from localhpo.creator.bayes import Bayes, Opinion, optimizer
from localhpo.creator.bayes.search import log_improvement
from localhpo.errors import SpaceExhaustedError
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.trial import Proposal, State, Trial

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


def run(task, objective, trials, seed=0, opinion=None, lost=State.FAILED):
    """Tune by hand, with another instance for each trial."""
    done = []
    for number in range(trials):
        history = History(task, tuple(done), seed, number)
        if opinion is None:
            (proposal,) = Bayes().propose(history, 1)
        else:
            proposal = Proposal(optimizer.suggest(history, opinion).config, "model+bo")
        score = objective(proposal.config)
        state = lost if score is None else State.COMPLETE
        done.append(Trial(number, state, proposal, score=None if score is None else float(score)))
    return done


def best(trials):
    return min(trial.score for trial in trials if trial.score is not None)


def at_random(space, objective, trials, seed):
    rng = np.random.default_rng(seed)
    return min(objective(space.sample(rng)) for _ in range(trials))


def configs(trials):
    return [dict(trial.config) for trial in trials]


def history_of(task, configs, scores, states=None, seed=0):
    states = states or [State.COMPLETE] * len(configs)
    trials = tuple(
        Trial(n, state, Proposal(config, "user"), score=score)
        for n, (config, score, state) in enumerate(zip(configs, scores, states, strict=True))
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


def test_the_default_comes_first_or_the_center(make_task):
    named = Space([Float("x", -1.0, 1.0, default=0.25), Float("y", -1.0, 1.0)])
    for space in (named, SQUARE):
        (proposal,) = Bayes().propose(History(make_task(space=space), (), 0, 0), 1)
        assert proposal.config == space.default()
        assert proposal.origin == "engine:bo"
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
def test_a_small_space_is_emptied_without_repeats(make_task, space):
    task = make_task(space=space)
    trials = run(task, lambda config: len(str(config)), space.cardinality)
    assert len({space.key(trial.config) for trial in trials}) == space.cardinality
    with pytest.raises(SpaceExhaustedError):
        Bayes().propose(History(task, tuple(trials), 0, len(trials)), 1)


def test_in_a_large_space_of_few_good_values_it_goes_on_to_others(make_task):
    """More trials than there are good configurations: every one of them is new."""
    space = Space([Int(f"x{n}", 1, 5) for n in range(5)])
    task = make_task(space=space)
    trials = run(task, lambda config: sum((v - 2) ** 2 for v in config.values()), 30)
    assert len({space.key(trial.config) for trial in trials}) == 30
    assert best(trials) == 0.0


def test_failures_lower_what_is_expected_of_where_they_were(make_task):
    task = make_task(space=SQUARE)
    ran = [{"x": x, "y": y} for x in (-0.8, 0.0, 0.6) for y in (-0.6, 0.6)]
    scores = [float(bowl(config)) for config in ran]
    lost = [{"x": 0.9, "y": y} for y in (-0.1, 0.0, 0.1)]
    near = np.array([SQUARE.encode({"x": 0.88, "y": 0.05})])

    def value(failed):
        states = [State.COMPLETE] * len(ran) + [State.FAILED] * len(failed)
        history = history_of(task, ran + failed, scores + [None] * len(failed), states)
        return optimizer.Surface(history, None).value(near)[0]

    assert value(lost) < value([])
    assert value(lost[1:2]) < value([])


@pytest.mark.parametrize("state", [State.FAILED, State.INFEASIBLE])
def test_it_turns_away_from_a_wall_behind_which_nothing_runs(make_task, state):
    """Larger is better until memory runs out; the loop gives up after 20 refusals in a row."""
    space = Space(
        [Int("batch", 8, 1024, log=True), Float("rate", 1e-4, 1.0, log=True), Int("layers", 1, 12)]
    )

    def loss_if_it_runs(config):
        if config["batch"] * config["layers"] >= 1200:
            return None
        away = np.log10(config["rate"]) + 2.0
        return away**2 - np.log2(config["batch"]) - config["layers"] / 2

    for seed in range(2):
        trials = run(make_task(space=space), loss_if_it_runs, 30, seed, lost=state)
        ran = "".join("." if trial.score is None else "x" for trial in trials)
        assert max(map(len, ran.split("x"))) < 16


def test_no_score_is_made_up_for_a_failure(make_task):
    """Failures far away change nothing of what is thought of the scores."""
    task = make_task(space=SQUARE)
    ok = drawn(SQUARE, 6)
    scores = [float(bowl(config)) for config in ok]
    states = [State.COMPLETE] * 6 + [State.FAILED] * 2
    failed = [{"x": 1.0, "y": 1.0}, {"x": 1.0, "y": 0.98}]
    before = optimizer.Surface(history_of(task, ok, scores), None)
    after = optimizer.Surface(history_of(task, ok + failed, [*scores, None, None], states), None)
    asked = np.array([SQUARE.encode({"x": -0.9, "y": y}) for y in (-0.9, -0.5)])
    np.testing.assert_allclose(before.value(asked), after.value(asked), atol=0.1)


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.INTERRUPTED])
def test_what_still_runs_is_reckoned_with(make_task, state):
    task, scored = make_task(space=BOWL), drawn(BOWL, 6)
    scores = [float(bowl(config)) for config in scored]
    history = history_of(task, scored, scores)
    (alone,) = Bayes().propose(history, 1)
    running = dataclasses.replace(
        history,
        trials=(*history.trials, Trial(6, state, alone)),
    )
    (other,) = Bayes().propose(running, 1)
    assert BOWL.distance(alone.config, other.config) > 0.02


def test_parallel_proposals_lie_apart(make_task):
    for count in (0, 6):
        scored = drawn(BOWL, count)
        history = history_of(make_task(space=BOWL), scored, [float(bowl(c)) for c in scored])
        made = [proposal.config for proposal in Bayes().propose(history, 4)]
        gaps = [BOWL.distance(a, b) for i, a in enumerate(made) for b in made[:i]]
        assert min(gaps) > 0.02


def test_maximizing_is_minimizing_the_negative(make_task):
    down, up = make_task(space=BOWL), make_task(space=BOWL, direction="maximize")
    a = run(down, bowl, 10, seed=1)
    b = run(up, lambda config: -bowl(config), 10, seed=1)
    assert configs(a) == configs(b)


def test_the_units_of_the_score_do_not_matter(make_task):
    task = make_task(space=SQUARE)
    a = run(task, bowl, 8)
    b = run(task, lambda config: 1024.0 * bowl(config), 8)
    assert configs(a) == configs(b)


@pytest.mark.parametrize(("space", "objective"), [(BOWL, bowl), (NESTED, nested)])
def test_another_instance_goes_on_alike_and_another_seed_does_not(make_task, space, objective):
    task = make_task(space=space)
    a, b, c = (configs(run(task, objective, 8, seed)) for seed in (3, 3, 4))
    assert a == b != c


SCORES = {
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
@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_odd_scores_do_not_break_it(make_task, scores, direction):
    task = make_task(space=SQUARE, direction=direction)
    known = drawn(SQUARE, len(scores))
    proposals = Bayes().propose(history_of(task, known, scores), 2)
    keys = {SQUARE.key(config) for config in [*known, *(p.config for p in proposals)]}
    assert len(keys) == len(scores) + 2


def test_a_diverged_run_does_not_hide_differences_between_good_ones(make_task):
    task = make_task(space=SQUARE)

    def cliff(config):
        return 1e9 if config["x"] < -0.5 else bowl(config)

    assert np.mean([best(run(task, cliff, 20, seed)) for seed in range(3)]) < 0.02


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_standardized_merits_keep_their_order(count):
    merits = np.random.default_rng(count).normal(size=count) ** 3
    drawn_in = optimizer.standardized(merits)
    assert (np.argsort(drawn_in) == np.argsort(merits)).all()
    assert abs(drawn_in.mean()) < 1e-9
    assert drawn_in.std() == pytest.approx(1.0 if count > 1 else 0.0)


def test_thousands_of_trials_take_no_longer_than_hundreds(make_task):
    """Most of them are left out of the process, but never the best, and none is repeated."""
    known = drawn(BOWL, 3000)
    history = history_of(make_task(space=BOWL), known, [float(bowl(config)) for config in known])
    (proposal,) = Bayes().propose(history, 1)
    assert BOWL.key(proposal.config) not in {BOWL.key(config) for config in known}
    assert bowl(proposal.config) < np.quantile([trial.score for trial in history.trials], 0.02)
    assert proposal.seconds < 20.0


def test_a_history_of_every_state_is_taken(make_task):
    states = [state for state in State for _ in range(3)]
    scored = (State.COMPLETE, State.PRUNED)
    scores = [0.1 * n if state in scored else None for n, state in enumerate(states)]
    history = history_of(make_task(space=NESTED), drawn(NESTED, len(states)), scores, states)
    assert len(Bayes().propose(history, 3)) == 3


def test_only_failures_are_no_obstacle(make_task):
    known = drawn(NESTED, 8)
    history = history_of(make_task(space=NESTED), known, [None] * 8, [State.FAILED] * 8)
    (proposal,) = Bayes().propose(history, 1)
    NESTED.validate(proposal.config)
    assert "no trial has a score yet" in proposal.rationale


def opinion_around(space, where, spread=0.08):
    """Return the opinion of a model that would try what is near a point of the cube."""
    rng = np.random.default_rng(0)
    near = np.clip(rng.normal(where, spread, (24, len(space.columns))), 0.0, 1.0)
    return Opinion(space, [space.decode(point) for point in near], 1.0)


RIGHT, WRONG = (0.65, 0.35, 0.65, 0.35), (0.1, 0.9, 0.1, 0.9)
"""The minimum of the bowl in the unit cube, and a place far from it."""


def test_a_right_opinion_speeds_it_up(make_task):
    task, seeds = make_task(space=BOWL), range(4)
    leaning = [best(run(task, bowl, 6, seed, opinion_around(BOWL, RIGHT))) for seed in seeds]
    alone = [best(run(task, bowl, 6, seed)) for seed in seeds]
    assert np.mean(leaning) < 0.9 * np.mean(alone)


def test_a_wrong_opinion_is_overcome(make_task):
    task, seeds = make_task(space=BOWL), range(4)
    misled = [run(task, bowl, 24, seed, opinion_around(BOWL, WRONG)) for seed in seeds]
    random = [at_random(BOWL, bowl, 24, seed) for seed in range(20)]
    assert np.mean([best(trials) for trials in misled]) < np.mean(random) / 2


def test_the_weight_of_an_opinion_follows_the_trials(make_task):
    known = drawn(BOWL, 15)
    history = history_of(make_task(space=BOWL), known, [float(bowl(config)) for config in known])
    right, wrong = (
        optimizer.Surface(history, opinion_around(BOWL, where)).weight for where in (RIGHT, WRONG)
    )
    assert right > 0.5 > wrong
    assert optimizer.Surface(history, None).weight == 0.0


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
