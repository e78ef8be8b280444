from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.engines import KINDS, Engine
from localhpo.creator.engines.past import study
from localhpo.creator.engines.state import checked
from localhpo.errors import CreatorError, MissingExtraError, SpaceError, SpaceExhaustedError
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
    """Tune by hand: `make` is called for the engine of each trial."""
    done: list[Trial] = []
    while len(done) < trials:
        history = History(task, tuple(done), seed, len(done))
        (proposal,) = make().propose(history, 1)
        done.append(
            Trial(len(done), State.COMPLETE, proposal, score=float(objective(proposal.config)))
        )
    return done


def configs(trials: list[Trial]) -> list[dict[str, Any]]:
    return [dict(trial.config) for trial in trials]


def generations(trials: list[Trial]) -> list[int | None]:
    """What CMA-ES must remember; its pickles hold uninitialized memory, and differ."""
    return [trial.proposal.engine_state.get("cma:generation") for trial in trials]


def best(trials: list[Trial]) -> float:
    return min(trial.score for trial in trials if trial.score is not None)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", KINDS)
def test_a_fresh_engine_goes_on_as_the_old_one_would(make_task, name, setting):
    space, objective = SETTINGS[setting]
    task = make_task(space=space)
    old = Engine(name)
    trials = 8 if name == "gp" else 15
    lived = run(lambda: old, task, objective, trials, seed=3)
    resumed = run(lambda: Engine(name), task, objective, trials, seed=3)
    assert configs(lived) == configs(resumed)
    assert generations(lived) == generations(resumed)
    assert len({space.key(trial.config) for trial in lived}) == trials


@pytest.mark.parametrize(
    "name", ["random", "tpe", "cmaes", pytest.param("gp", marks=pytest.mark.slow)]
)
def test_another_process_proposes_the_same(make_task, name):
    script = textwrap.dedent(
        """
        import json, sys
        from localhpo.creator import History
        from localhpo.creator.engines import Engine
        from localhpo.space import Categorical, Float, Space
        from localhpo.task import Task
        from localhpo.trial import State, Trial

        name = sys.argv[1]
        space = Space([Float("x", 0, 1), Float("y", 0, 1), Categorical("c", ("a", "b", "c"))])
        task = Task("t", (), "loss", "minimize", space)
        done = []
        for number in range(9):
            history = History(task, tuple(done), 5, number)
            (proposal,) = Engine(name).propose(history, 1)
            done.append(Trial(number, State.COMPLETE, proposal, score=proposal.config["x"]))
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


def test_cmaes_reaches_the_same_with_a_restart_after_every_trial_and_not_without_its_state(
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

    def forgetful(history: History) -> Proposal:
        bare = tuple(
            trial.with_(proposal=_replace_state(trial.proposal, {})) for trial in history.trials
        )
        return Engine("cmaes").propose_one(
            History(history.task, bare, history.seed, history.next_number)
        )

    one = Engine("cmaes")
    lived = [run(lambda: one, task, bowl, trials, seed) for seed in seeds]
    resumed = _run_with(restarted, task, trials, seeds[0])
    bare = [_run_with(forgetful, task, trials, seed) for seed in seeds]
    assert configs(lived[0]) == configs(resumed)
    assert np.mean([best(t) for t in lived]) < np.mean(random) / 4
    assert np.mean([best(t) for t in bare]) > 3 * np.mean([best(t) for t in lived])


def _replace_state(proposal: Proposal, state: dict[str, Any]) -> Proposal:
    import dataclasses

    return dataclasses.replace(proposal, engine_state=state)


def _run_with(
    propose: Callable[[History], Proposal], task: Task, trials: int, seed: int
) -> list[Trial]:
    done: list[Trial] = []
    for number in range(trials):
        proposal = propose(History(task, tuple(done), seed, number))
        done.append(Trial(number, State.COMPLETE, proposal, score=bowl(proposal.config)))
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
    down, up = make_task(space=BOWL), make_task(space=BOWL, direction="maximize")
    a = run(lambda: Engine(name), down, bowl, 12, seed=1)
    b = run(lambda: Engine(name), up, lambda config: -bowl(config), 12, seed=1)
    assert configs(a) == configs(b)


@pytest.mark.parametrize("name", KINDS)
def test_the_same_study_seed_differs_from_another(make_task, name):
    task = make_task(space=BOWL)
    a, b = (Engine(name).propose_one(History(task, (), seed, 0)) for seed in (0, 1))
    assert a.config != b.config
    assert a.seed != b.seed


@pytest.mark.parametrize("name", KINDS)
def test_an_engine_takes_history_of_every_state_and_origin(make_task, make_trial, name):
    task, rng = make_task(space=NESTED), np.random.default_rng(0)
    measured = (Measurement(0, "loss", 0.5, 0.0), Measurement(1, "loss", float("nan"), 0.0))
    trials = [
        make_trial(
            number,
            NESTED.sample(rng),
            state,
            score=0.1 * number if state in (State.COMPLETE, State.PRUNED) else None,
            origin=origin,
            measurements=measured,
        )
        for number, (state, origin) in enumerate(
            [(state, origin) for state in State for origin in ("model", "user", "default")]
        )
    ]
    proposals = Engine(name).propose(History(task, tuple(trials), 0, len(trials)), 3)
    keys = {NESTED.key(proposal.config) for proposal in proposals}
    assert len(keys) == 3
    assert not keys & {NESTED.key(trial.config) for trial in trials}


def test_the_optuna_study_holds_what_an_engine_may_know(make_task, make_trial):
    task = make_task(space=BOWL)
    x = [{f"x{n}": 0.1 * k for n in range(4)} for k in range(5)]
    steps = (Measurement(0, "loss", 3.0, 0.0), Measurement(1, "loss", float("inf"), 0.0))
    trials = (
        make_trial(0, x[0], score=1.0),
        make_trial(1, x[1], State.PRUNED, score=3.0, measurements=steps),
        make_trial(2, x[2], State.FAILED),
        make_trial(3, x[3], State.INFEASIBLE),
        make_trial(4, x[4], State.RUNNING),
    )
    past = study(History(task, trials, 0, 5), optuna.samplers.RandomSampler())
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


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [1, 5])
def test_a_tiny_space_is_emptied_exactly(make_task, name, size):
    task = make_task(space=Space([Int("depth", 1, size)]))
    trials = run(lambda: Engine(name), task, lambda config: config["depth"], size, seed=0)
    assert sorted(trial.config["depth"] for trial in trials) == list(range(1, size + 1))
    with pytest.raises(SpaceExhaustedError):
        Engine(name).propose(History(task, tuple(trials), 0, size), 1)


@pytest.mark.parametrize("name", KINDS)
def test_proposals_of_one_call_differ_and_are_as_many_as_there_are(make_task, name):
    task = make_task(space=Space([Int("depth", 1, 5)]))
    history = History(task, (), 0, 0)
    proposals = Engine(name).propose(history, 8)
    assert sorted(p.config["depth"] for p in proposals) == [1, 2, 3, 4, 5]


def test_a_substitute_says_that_it_is_one(make_task, make_trial):
    space = Space([Int("depth", 1, 2000)])
    tried = [make_trial(n, {"depth": n + 1}, score=0.0) for n in range(1999)]
    history = History(make_task(space=space), tuple(tried), 0, 1999)
    proposal = Engine("random").propose_one(history)
    assert proposal.config == {"depth": 2000}
    assert proposal.tries == KINDS["random"].tries
    assert "the nearest one left" in proposal.note


@pytest.mark.parametrize("name", KINDS)
def test_only_failures_in_the_history_are_no_obstacle(make_task, make_trial, name):
    rng = np.random.default_rng(0)
    trials = [make_trial(n, MIXED.sample(rng), State.FAILED) for n in range(8)]
    proposal = Engine(name).propose_one(History(make_task(space=MIXED), tuple(trials), 0, 8))
    MIXED.validate(proposal.config)
    assert "no trial has a score yet" in proposal.rationale


@pytest.mark.parametrize("name", ["gp", "cmaes"])
def test_what_an_engine_does_not_model_it_names(make_task, name):
    task = make_task(space=NESTED)
    trials = run(lambda: Engine(name), task, nested, 8, seed=0)
    for trial in trials:
        blind = {n for n in ("depth", "optimizer", "momentum") if n in trial.config}
        if name == "cmaes":
            blind.add("model")
        note = trial.proposal.note
        assert ("does not model" in note) == bool(blind)
        assert all(n in note for n in blind)


def test_gp_without_torch_names_the_extra(monkeypatch):
    monkeypatch.setattr("localhpo.creator.engines.samplers.has_torch", lambda: False)
    with pytest.raises(MissingExtraError, match="the gp engine needs torch") as caught:
        Engine("gp")
    assert "localhpo[local]" in caught.value.hint


def test_gp_refuses_an_int_whose_values_it_cannot_list(make_task):
    task = make_task(space=HUGE, creator=CreatorSettings(name="gp"))
    with pytest.raises(SpaceError, match=r"rows: the gp engine .* got 1,000,000,000,000") as caught:
        open_creator(task)
    assert "tpe" in caught.value.hint


def test_optunas_logger_is_left_as_it_was(make_task, caplog):
    logger = logging.getLogger("optuna")
    logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        Engine("tpe").propose(History(make_task(space=BOWL), (), 0, 0), 2)
    assert logger.level == logging.INFO
    assert not caplog.records


def test_two_hundred_trials_are_no_burden(make_task, make_trial):
    rng = np.random.default_rng(0)
    trials = [make_trial(n, MIXED.sample(rng), score=float(n % 7)) for n in range(200)]
    history = History(make_task(space=MIXED), tuple(trials), 0, 200)
    for name in ("random", "tpe", "cmaes"):
        assert len(Engine(name).propose(history, 2)) == 2


class _Bomb:
    def __reduce__(self):
        return (os.system, ("exit 1",))


def test_a_state_that_would_run_code_is_refused():
    bomb = {"cma:optimizer:0": pickle.dumps(_Bomb()).hex()}
    with pytest.raises(CreatorError, match=r"trial 7 cannot be used: it names \w+\.system"):
        checked(bomb, 7)


@pytest.mark.parametrize(
    "state", [{"cma:optimizer:0": "zz"}, {"cma:optimizer:1": "80"}, {"cma:optimizer:0": "8004"}]
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(CreatorError, match="cannot be used"):
        checked(state, 0)


def test_the_state_of_cmaes_is_given_back_unchanged(make_task):
    trials = run(lambda: Engine("cmaes"), make_task(space=BOWL), bowl, 20, seed=0)
    states = [dict(trial.proposal.engine_state) for trial in trials]
    assert any("cma:optimizer:0" in state for state in states)
    assert [checked(state, 0) for state in states] == states
