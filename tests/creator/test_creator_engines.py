from __future__ import annotations

import json
import logging
import os
import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.optuna import ENGINES, Engine
from localhpo.creator.optuna.optuna_study import build_study, check_state
from localhpo.errors import (
    CreatorError,
    InputError,
    MissingExtraError,
    SpaceError,
    SpaceExhaustedError,
)
from localhpo.objective import Constraint, Objective, best_trials, dominates
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import CreatorSettings, Task
from localhpo.trial import Measurement, Proposal, State, Trial

BOWL = Space([Float(f"x{n}", -1.0, 1.0) for n in range(4)])
MIXED = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Float("drop", 0.0, 0.5, step=0.05),
        Int("depth", 1, 10),
        Int("units", 1, 1000, log=True),
        Ordinal("batch", (32, 64, 128)),
        Categorical("booster", ("tree", "dart")),
        Categorical("flag", (True, False)),
    ]
)
NESTED = Space(
    [
        Categorical("model", ("tree", "net", "line")),
        Int("depth", 1, 8, when={"model": ("tree",)}),
        Categorical("optimizer", ("sgd", "adam"), when={"model": ("net",)}),
        Float("momentum", 0.0, 0.99, when={"optimizer": ("sgd",)}),
        Float("rate", 1e-4, 1.0, log=True),
    ]
)
HUGE = Space([Int("rows", 1, 10**12)])


def bowl(config: Mapping[str, Any]) -> float:
    """A quadratic with its minimum off the center."""
    return sum((value - 0.3 * (-1) ** n) ** 2 for n, value in enumerate(config.values()))


def mixed(config: Mapping[str, Any]) -> float:
    return (np.log10(config["rate"]) + 2.0) ** 2 + config["depth"] / 10 + config["drop"]


def nested(config: Mapping[str, Any]) -> float:
    return (
        abs(np.log10(config["rate"]) + 2.0)
        + {"tree": 0.5, "net": 0.0, "line": 1.0}[config["model"]]
    )


SETTINGS = {"bowl": (BOWL, bowl), "mixed": (MIXED, mixed), "nested": (NESTED, nested)}


def run(
    make: Callable[[], Engine], task: Task, objective: Callable[..., float], trials: int, seed: int
) -> list[Trial]:
    """Return the trials of a small study: `make` is called for the engine of each trial."""
    done: list[Trial] = []
    while len(done) < trials:
        history = History(task, tuple(done), seed, len(done))
        (proposal,) = make().propose(history, 1)
        done.append(
            Trial(len(done), State.COMPLETE, proposal, values=(float(objective(proposal.config)),))
        )
    return done


def configs(trials: list[Trial]) -> list[dict[str, Any]]:
    return [dict(trial.config) for trial in trials]


def generations(trials: list[Trial]) -> list[int | None]:
    """Return what CMA-ES stores of each trial; its pickles hold uninitialized RAM, and differ."""
    return [trial.proposal.engine_state.get("cma:generation") for trial in trials]


def best(trials: list[Trial]) -> float:
    return min(trial.value for trial in trials if trial.value is not None)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ENGINES)
def test_a_fresh_engine_proposes_as_the_old_one(make_task, name, setting):
    space, objective = SETTINGS[setting]
    task = make_task(space=space)
    old = Engine(name)
    trials = 8 if name == "gp" else 15
    continued = run(lambda: old, task, objective, trials, seed=3)
    resumed = run(lambda: Engine(name), task, objective, trials, seed=3)
    assert configs(continued) == configs(resumed)
    assert generations(continued) == generations(resumed)
    assert len({space.key(trial.config) for trial in continued}) == trials


@pytest.mark.parametrize(
    "name", ["random", "tpe", "cmaes", "nsga2", pytest.param("gp", marks=pytest.mark.slow)]
)
def test_another_process_proposes_the_same(make_task, name):
    script = textwrap.dedent(
        """
        import json, sys
        from localhpo.creator import History
        from localhpo.creator.optuna import Engine
        from localhpo.objective import Objective
        from localhpo.space import Categorical, Float, Space
        from localhpo.task import Task
        from localhpo.trial import State, Trial

        name = sys.argv[1]
        space = Space([Float("x", 0, 1), Float("y", 0, 1), Categorical("c", ("a", "b", "c"))])
        task = Task("t", (), (Objective("loss", "minimize"),), space)
        done = []
        for number in range(9):
            history = History(task, tuple(done), 5, number)
            (proposal,) = Engine(name).propose(history, 1)
            done.append(Trial(number, State.COMPLETE, proposal, values=(proposal.config["x"],)))
        print(json.dumps([dict(trial.config) for trial in done]))
        """
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script, name],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())) == 9


def test_cmaes_needs_its_stored_state_and_nothing_else_after_a_restart(
    make_task,
):
    task = make_task(space=BOWL)
    trials, seeds = 80, range(3)
    random = [best(run(lambda: Engine("random"), task, bowl, trials, seed)) for seed in seeds]

    def restarted(history: History) -> Proposal:
        """Send the state through JSON, as the store does, and ask a new engine."""
        stored = tuple(
            trial.with_(
                proposal=_replace_state(
                    trial.proposal, json.loads(json.dumps(dict(trial.proposal.engine_state)))
                )
            )
            for trial in history.trials
        )
        return Engine("cmaes").propose_one(
            History(history.task, stored, history.seed, history.next_number)
        )

    def without_state(history: History) -> Proposal:
        bare = tuple(
            trial.with_(proposal=_replace_state(trial.proposal, {})) for trial in history.trials
        )
        return Engine("cmaes").propose_one(
            History(history.task, bare, history.seed, history.next_number)
        )

    one = Engine("cmaes")
    continued = [run(lambda: one, task, bowl, trials, seed) for seed in seeds]
    resumed = _run_with(restarted, task, trials, seeds[0])
    bare = [_run_with(without_state, task, trials, seed) for seed in seeds]
    assert configs(continued[0]) == configs(resumed)
    assert np.mean([best(t) for t in continued]) < np.mean(random) / 4
    assert np.mean([best(t) for t in bare]) > 3 * np.mean([best(t) for t in continued])


def _replace_state(proposal: Proposal, state: dict[str, Any]) -> Proposal:
    import dataclasses

    return dataclasses.replace(proposal, engine_state=state)


def _run_with(
    propose: Callable[[History], Proposal], task: Task, trials: int, seed: int
) -> list[Trial]:
    done: list[Trial] = []
    for number in range(trials):
        proposal = propose(History(task, tuple(done), seed, number))
        done.append(Trial(number, State.COMPLETE, proposal, values=(bowl(proposal.config),)))
    return done


@pytest.mark.parametrize(("name", "trials", "factor"), [("tpe", 40, 0.7), ("gp", 12, 0.5)])
def test_engines_beat_random_on_a_bowl(make_task, name, trials, factor):
    task = make_task(space=BOWL)
    seeds = range(3) if name == "gp" else range(6)
    model = [best(run(lambda: Engine(name), task, bowl, trials, seed)) for seed in seeds]
    random = [best(run(lambda: Engine("random"), task, bowl, trials, seed)) for seed in seeds]
    assert np.mean(model) < factor * np.mean(random)


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_maximizing_is_minimizing_the_negative(make_task, name):
    down, up = (
        make_task(space=BOWL),
        make_task(space=BOWL, objectives=(Objective("loss", "maximize"),)),
    )
    a = run(lambda: Engine(name), down, bowl, 12, seed=1)
    b = run(lambda: Engine(name), up, lambda config: -bowl(config), 12, seed=1)
    assert configs(a) == configs(b)


@pytest.mark.parametrize("name", ENGINES)
def test_another_study_seed_gives_another_proposal(make_task, name):
    task = make_task(space=BOWL)
    a, b = (Engine(name).propose_one(History(task, (), seed, 0)) for seed in (0, 1))
    assert a.config != b.config
    assert a.seed != b.seed


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_takes_history_of_every_state_and_origin(make_task, make_trial, name):
    task, rng = make_task(space=NESTED), np.random.default_rng(0)
    measured = (Measurement(0, "loss", 0.5, 0.0), Measurement(1, "loss", float("nan"), 0.0))
    trials = [
        make_trial(
            number,
            NESTED.sample(rng),
            state,
            value=0.1 * number if state in (State.COMPLETE, State.PRUNED) else None,
            origin=origin,
            measurements=measured,
        )
        for number, (state, origin) in enumerate(
            [(state, origin) for state in State for origin in ("llm", "user", "default")]
        )
    ]
    proposals = Engine(name).propose(History(task, tuple(trials), 0, len(trials)), 3)
    keys = {NESTED.key(proposal.config) for proposal in proposals}
    assert len(keys) == 3
    assert not keys & {NESTED.key(trial.config) for trial in trials}


def test_the_optuna_study_holds_the_history(make_task, make_trial):
    task = make_task(space=BOWL)
    x = [{f"x{n}": 0.1 * k for n in range(4)} for k in range(5)]
    steps = (Measurement(0, "loss", 3.0, 0.0), Measurement(1, "loss", float("inf"), 0.0))
    trials = (
        make_trial(0, x[0], value=1.0),
        make_trial(1, x[1], State.PRUNED, value=3.0, measurements=steps),
        make_trial(2, x[2], State.FAILED),
        make_trial(3, x[3], State.INFEASIBLE),
        make_trial(4, x[4], State.RUNNING),
    )
    past = build_study(History(task, trials, 0, 5), optuna.samplers.RandomSampler())
    states = optuna.trial.TrialState
    assert [trial.state for trial in past.trials] == [
        states.COMPLETE,
        states.PRUNED,
        states.FAIL,
        states.RUNNING,
    ]
    assert past.trials[0].value == 1.0
    assert past.trials[1].intermediate_values == {0: 3.0}
    assert past.trials[2].value is None


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("size", [1, 5])
def test_every_configuration_of_a_tiny_space_is_proposed_once(make_task, name, size):
    task = make_task(space=Space([Int("depth", 1, size)]))
    trials = run(lambda: Engine(name), task, lambda config: config["depth"], size, seed=0)
    assert sorted(trial.config["depth"] for trial in trials) == list(range(1, size + 1))
    with pytest.raises(SpaceExhaustedError):
        Engine(name).propose(History(task, tuple(trials), 0, size), 1)


@pytest.mark.parametrize("name", ENGINES)
def test_proposals_of_one_call_differ_and_are_as_many_as_there_are(make_task, name):
    task = make_task(space=Space([Int("depth", 1, 5)]))
    history = History(task, (), 0, 0)
    proposals = Engine(name).propose(history, 8)
    assert sorted(p.config["depth"] for p in proposals) == [1, 2, 3, 4, 5]


def test_a_substitute_for_duplicates_is_noted(make_task, make_trial):
    space = Space([Int("depth", 1, 2000)])
    tried = [make_trial(n, {"depth": n + 1}, value=0.0) for n in range(1999)]
    history = History(make_task(space=space), tuple(tried), 0, 1999)
    proposal = Engine("random").propose_one(history)
    assert proposal.config == {"depth": 2000}
    assert proposal.tries == ENGINES["random"].tries
    assert "the nearest untried configuration" in proposal.note


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_proposes_after_failures_only(make_task, make_trial, name):
    rng = np.random.default_rng(0)
    trials = [make_trial(n, MIXED.sample(rng), State.FAILED) for n in range(8)]
    proposal = Engine(name).propose_one(History(make_task(space=MIXED), tuple(trials), 0, 8))
    MIXED.validate(proposal.config)
    assert "proposed before any trial had a value" in proposal.rationale


@pytest.mark.parametrize("name", ["gp", "cmaes", "nsga2"])
def test_parameters_that_an_engine_does_not_model_are_named(make_task, name):
    task = make_task(space=NESTED)
    trials = run(lambda: Engine(name), task, nested, 8, seed=0)
    for trial in trials:
        unmodeled = {n for n in ("depth", "optimizer", "momentum") if n in trial.config}
        if name == "cmaes":
            unmodeled.add("model")
        note = trial.proposal.note
        assert ("does not model" in note) == bool(unmodeled)
        assert all(n in note for n in unmodeled)


def test_gp_without_torch_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="the gp engine needs torch") as caught:
        Engine("gp")
    assert "localhpo[local]" in caught.value.hint


def test_gp_refuses_an_int_with_too_many_values(make_task):
    task = make_task(space=HUGE, creator=CreatorSettings(name="gp"))
    with pytest.raises(SpaceError, match=r"rows: the gp engine .* got 1,000,000,000,000") as caught:
        open_creator(task)
    assert "tpe" in caught.value.hint


def test_the_logger_of_optuna_is_restored(make_task, caplog):
    logger = logging.getLogger("optuna")
    logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        Engine("tpe").propose(History(make_task(space=BOWL), (), 0, 0), 2)
    assert logger.level == logging.INFO
    assert not caplog.records


def test_an_engine_proposes_after_two_hundred_trials(make_task, make_trial):
    rng = np.random.default_rng(0)
    trials = [make_trial(n, MIXED.sample(rng), value=float(n % 7)) for n in range(200)]
    history = History(make_task(space=MIXED), tuple(trials), 0, 200)
    for name in ("random", "tpe", "cmaes"):
        assert len(Engine(name).propose(history, 2)) == 2


SQUARE = Space([Float("x", 0.0, 1.0), Float("y", 0.0, 1.0)])
TWO = (Objective("near_origin", "minimize"), Objective("near_corner", "maximize"))
LIMIT = Constraint("height", max=0.4)
SEVERAL = ["tpe", "nsga2", "gp"]
"""Engines that model several objectives and constraints."""


def two_objectives(config: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, ...]]:
    """Values and violations; the feasible Pareto set is the diagonal up to y = 0.4."""
    x, y = config["x"], config["y"]
    return (x**2 + y**2, -((1.0 - x) ** 2) - (1.0 - y) ** 2), (LIMIT.violation(y),)


def run_several(
    make: Callable[[], Engine], task: Task, trials: int, seed: int, start: Sequence[Trial] = ()
) -> list[Trial]:
    """Return the trials of a small study with two objectives."""
    done = list(start)
    while len(done) < trials:
        (proposal,) = make().propose(History(task, tuple(done), seed, len(done)), 1)
        values, violations = two_objectives(proposal.config)
        if not task.constraints:
            violations = ()
        done.append(
            Trial(len(done), State.COMPLETE, proposal, values=values, violations=violations)
        )
    return done


def hypervolume(trials: Sequence[Trial], reference: tuple[float, float] = (2.0, -2.0)) -> float:
    """Return the area that the feasible trials dominate, up to a reference point."""
    front = [t.values for t in best_trials(trials, TWO) if t.feasible]
    area, upper = 0.0, reference[0]
    for low, high in sorted(front, reverse=True):
        area += max(0.0, upper - low) * max(0.0, high - reference[1])
        upper = min(upper, low)
    return area


@pytest.mark.parametrize(
    ("name", "trials"),
    [("tpe", 40), ("nsga2", 60), pytest.param("gp", 12, marks=pytest.mark.slow)],
)
def test_the_feasible_front_of_an_engine_is_better_than_that_of_random(make_task, name, trials):
    task = make_task(space=SQUARE, objectives=TWO, constraints=(LIMIT,))
    seeds = range(2) if name == "gp" else range(3)
    model = [hypervolume(run_several(lambda: Engine(name), task, trials, s)) for s in seeds]
    random = [hypervolume(run_several(lambda: Engine("random"), task, trials, s)) for s in seeds]
    assert np.mean(model) > np.mean(random)


def test_hypervolume_of_a_front_grows_with_each_better_point(make_task):
    task = make_task(space=SQUARE, objectives=TWO, constraints=(LIMIT,))
    trials = run_several(lambda: Engine("random"), task, 20, seed=0)
    grown = [hypervolume(trials[:count]) for count in range(1, 21)]
    assert grown == sorted(grown)
    front = best_trials(trials, TWO)
    assert not any(dominates(a.values, b.values, TWO) for a in front for b in front)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", ["random", *SEVERAL])
def test_a_fresh_engine_proposes_the_same_for_several_objectives(make_task, name, constrained):
    task = make_task(space=SQUARE, objectives=TWO, constraints=(LIMIT,) if constrained else ())
    old, trials = Engine(name), 6 if name == "gp" else 45
    continued = run_several(lambda: old, task, trials, seed=5)
    stored = [
        trial.with_(
            proposal=_replace_state(
                trial.proposal, json.loads(json.dumps(dict(trial.proposal.engine_state)))
            )
        )
        for trial in continued[: trials // 2]
    ]
    resumed = run_several(lambda: Engine(name), task, trials, seed=5, start=stored)
    assert configs(continued) == configs(resumed)
    assert len({SQUARE.key(trial.config) for trial in continued}) == trials


@pytest.mark.parametrize("name", ["random", *SEVERAL])
def test_trials_without_values_or_constraints_are_no_obstacle(make_task, make_trial, name):
    task = make_task(space=SQUARE, objectives=TWO, constraints=(LIMIT,))
    known, rng = {"values": (1.0, -1.0)}, np.random.default_rng(0)
    trials = [
        make_trial(0, SQUARE.sample(rng), State.FAILED),
        make_trial(1, SQUARE.sample(rng), State.INFEASIBLE),
        make_trial(2, SQUARE.sample(rng), State.RUNNING),
        make_trial(3, SQUARE.sample(rng), **known, violations=(float("nan"),)),
        make_trial(4, SQUARE.sample(rng), origin="external", **known),
        *(
            make_trial(n, SQUARE.sample(rng), origin="llm", **known, violations=(0.1 * n - 0.7,))
            for n in range(5, 10)
        ),
    ]
    proposals = Engine(name).propose(History(task, tuple(trials), 0, len(trials)), 2)
    assert len({SQUARE.key(proposal.config) for proposal in proposals}) == 2
    study = build_study(History(task, tuple(trials), 0, 10), optuna.samplers.RandomSampler())
    states = optuna.trial.TrialState
    assert [trial.state for trial in study.trials[:4]] == [
        states.FAIL, states.RUNNING, states.FAIL, states.FAIL,
    ]  # fmt: skip
    assert study.trials[4].system_attrs["constraints"] == [pytest.approx(-0.2)]
    assert study.trials[4].values == [1.0, -1.0]


def test_nsga2_takes_trials_of_others_into_its_first_generation(make_task, make_trial):
    task, rng = make_task(space=SQUARE, objectives=TWO), np.random.default_rng(0)
    trials = [
        make_trial(n, SQUARE.sample(rng), values=(float(n), -float(n)), origin="external")
        for n in range(25)
    ]
    known = {name: {trial.config[name] for trial in trials} for name in ("x", "y")}
    proposed = [
        Engine("nsga2").propose_one(History(task, tuple(trials), seed, 25)).config
        for seed in range(12)
    ]
    inherited = [c for c in proposed if c["x"] in known["x"] or c["y"] in known["y"]]
    assert len(inherited) > 6, "children take half of their values from parents"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objectives": TWO}, r"objective near_corner \(maximize\)"),
        ({"constraints": (LIMIT,)}, "constraint height <= 0.4"),
    ],
)
def test_cmaes_refuses_several_objectives_and_constraints(make_task, changes, says):
    task = make_task(space=SQUARE, creator=CreatorSettings(name="cmaes"), **changes)
    with pytest.raises(InputError, match="'cmaes' needs one objective and no constraints") as error:
        open_creator(task)
    assert re.search(says, str(error.value))
    assert '"nsga2"' in error.value.hint


@pytest.mark.parametrize("name", SEVERAL)
def test_a_constraint_alone_is_respected(make_task, name):
    task = make_task(space=SQUARE, objectives=TWO[:1], constraints=(Constraint("sum", min=1.0),))
    done: list[Trial] = []
    for number in range(12 if name == "gp" else 50):
        proposal = Engine(name).propose_one(History(task, tuple(done), 3, number))
        x, y = proposal.config["x"], proposal.config["y"]
        violation = task.constraints[0].violation(x + y)
        done.append(
            Trial(number, State.COMPLETE, proposal, values=(x**2 + y**2,), violations=(violation,))
        )
    (best_one,) = best_trials(done, task.objectives)
    assert best_one.feasible
    assert best_one.value < 0.75, "0.5 is the constrained optimum; feasible points average 0.9"


class _Bomb:
    def __reduce__(self):
        return (os.system, ("exit 1",))


def test_a_state_that_would_run_code_is_refused():
    bomb = {"cma:optimizer:0": pickle.dumps(_Bomb()).hex()}
    with pytest.raises(CreatorError, match=r"trial 7 cannot be used: it names \w+\.system"):
        check_state(bomb, 7)


@pytest.mark.parametrize(
    "state", [{"cma:optimizer:0": "zz"}, {"cma:optimizer:1": "80"}, {"cma:optimizer:0": "8004"}]
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(CreatorError, match="cannot be used"):
        check_state(state, 0)


def test_the_state_of_cmaes_is_given_back_unchanged(make_task):
    trials = run(lambda: Engine("cmaes"), make_task(space=BOWL), bowl, 20, seed=0)
    states = [dict(trial.proposal.engine_state) for trial in trials]
    assert any("cma:optimizer:0" in state for state in states)
    assert [check_state(state, 0) for state in states] == states
