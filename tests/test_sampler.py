"""The Creator inside an Optuna study."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from localhpo import LocalHPOSampler, sampler
from localhpo.creator import Creator, open_creator
from localhpo.creator.optuna import Engine
from localhpo.creator.protocol import History
from localhpo.errors import InputError, TaskError
from localhpo.space.optuna import from_distributions
from localhpo.task import Task
from localhpo.trial import Proposal

SPACE = {
    "lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
    "depth": optuna.distributions.IntDistribution(1, 8),
    "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    depth = trial.suggest_int("depth", 1, 8)
    return (depth - 3) ** 2 + 100 * lr + (trial.suggest_categorical("kind", ["a", "b"]) == "a")


def configs(study: optuna.Study) -> list[tuple[object, ...]]:
    return [tuple(trial.params.values()) for trial in study.trials]


@pytest.mark.parametrize("creator", ["random", "tpe", "cmaes", "nsga2"])
def test_a_study_of_optuna_runs_with_every_engine(creator: str) -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(SPACE, creator=creator, seed=1))
    study.optimize(objective, n_trials=8)
    assert len(set(configs(study))) == 8
    again = optuna.create_study(sampler=LocalHPOSampler(SPACE, creator=creator, seed=1))
    again.optimize(objective, n_trials=8)
    assert configs(again) == configs(study)


def test_an_unknown_space_is_taken_from_the_first_trial() -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(creator="random"))
    study.optimize(objective, n_trials=4)
    assert study.trials[0].params == {"lr": pytest.approx(3.16e-3), "depth": 5, "kind": "a"}
    assert len(set(configs(study))) == 4


@pytest.mark.parametrize("is_told", [False, True])
def test_a_choice_may_be_none(is_told: bool) -> None:
    weights = optuna.distributions.CategoricalDistribution(["balanced", None])
    whole = {"weight": weights, "x": optuna.distributions.FloatDistribution(0, 1)}
    study = optuna.create_study(sampler=LocalHPOSampler(whole if is_told else None, creator="tpe"))

    def objective(trial: optuna.Trial) -> float:
        weight = trial.suggest_categorical("weight", weights.choices)
        return trial.suggest_float("x", 0, 1) + (weight is not None)

    study.optimize(objective, n_trials=10)
    assert {trial.params["weight"] for trial in study.trials} == {"balanced", None}
    assert study.best_params["weight"] is None


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_a_choice_that_localhpo_cannot_represent_is_random() -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(creator="random"))

    def objective(trial: optuna.Trial) -> float:
        (first, _) = trial.suggest_categorical("sizes", [(8, 8), (16, 8)])
        return first + trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=8)
    assert {trial.params["sizes"] for trial in study.trials} == {(8, 8), (16, 8)}


def test_origins_and_reasons_are_stored_with_the_trials() -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(SPACE, creator="tpe"))
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        assert trial.system_attrs["localhpo:origin"] == "tpe"
        assert trial.system_attrs["localhpo:rationale"]


def test_an_engine_continues_from_a_storage(tmp_path: Path) -> None:
    """CMA-ES is restored from attributes of the trials, in a storage with short attributes."""

    def run(trials_a_time: int, storage: str | None) -> list[tuple[object, ...]]:
        name = "bowl"
        for _ in range(12 // trials_a_time):
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                load_if_exists=True,
                sampler=LocalHPOSampler(
                    {name: SPACE[name] for name in ("lr", "depth")}, creator="cmaes"
                ),
            )
            study.optimize(
                lambda t: (
                    t.suggest_float("lr", 1e-4, 1e-1, log=True) + t.suggest_int("depth", 1, 8)
                ),
                n_trials=trials_a_time,
            )
        return configs(study)

    url = f"sqlite:///{tmp_path}/optuna.db"
    assert run(3, url) == run(12, None)


def test_failed_and_pruned_trials_have_no_final_value() -> None:
    def patchy(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        if trial.number % 3 == 2:
            raise ValueError(trial.number)
        return value

    study = optuna.create_study(sampler=LocalHPOSampler(SPACE, creator="tpe"))
    study.optimize(patchy, n_trials=9, catch=(ValueError,))
    assert len(set(configs(study))) == 9


def test_fixed_values_reach_the_creator_and_not_the_objective(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[dict[str, object]] = []

    def opened(task: Task) -> Engine:
        given.append(dict(task.fixed))
        return Engine("random")

    monkeypatch.setattr(sampler, "open_creator", opened)
    study = optuna.create_study(sampler=LocalHPOSampler(SPACE, fixed={"trees": 300}))
    study.optimize(objective, n_trials=1)
    assert given == [{"trees": 300}]
    assert study.trials[0].params.keys() == SPACE.keys()
    both = optuna.create_study(sampler=LocalHPOSampler(SPACE, fixed={"depth": 3}))
    with pytest.raises(TaskError, match="depth: must not be in"):
        both.optimize(objective, n_trials=1)


PLANE = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in ("x", "y")}


def two_objectives(trial: optuna.Trial) -> tuple[float, float]:
    x, y = (trial.suggest_float(name, 0.0, 1.0) for name in ("x", "y"))
    trial.set_user_attr("excess", y - 0.4)
    return x**2 + y**2, -((1.0 - x) ** 2) - (1.0 - y) ** 2


def excess(trial: optuna.trial.FrozenTrial) -> tuple[float]:
    return (trial.user_attrs["excess"],)


def study_of_two(creator: str, **more: Any) -> optuna.Study:
    return optuna.create_study(
        directions=["minimize", "maximize"],
        sampler=LocalHPOSampler(PLANE, creator=creator, seed=2, **more),
    )


@pytest.mark.parametrize("creator", ["random", "tpe", "nsga2"])
def test_engines_take_several_objectives_and_constraints(
    creator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[Task] = []

    def opened(task: Task) -> Creator:
        tasks.append(task)
        return open_creator(task)

    histories: list[History] = []

    class Recording(Engine):
        def propose_one(self, history: History) -> Proposal:
            histories.append(history)
            return super().propose_one(history)

    monkeypatch.setattr(sampler, "open_creator", opened)
    monkeypatch.setattr("localhpo.creator.optuna.engine.Engine", Recording)
    study = study_of_two(creator, constraints_func=excess)
    study.optimize(two_objectives, n_trials=25)
    assert len(set(configs(study))) == 25
    assert len(tasks) == 1
    last = histories[-1]
    assert [one.name for one in last.task.objectives] == ["value_0", "value_1"]
    assert [one.direction for one in last.task.objectives] == ["minimize", "maximize"]
    assert [one.describe() for one in last.task.constraints] == ["constraint_0 <= 0"]
    for known, trial in zip(last.trials, study.trials, strict=False):
        assert known.values == tuple(trial.values)
        assert known.violations == (trial.params["y"] - 0.4,)
    assert all(trial.params["y"] <= 0.4 for trial in study.best_trials), "Optuna knows them too"


def test_the_front_of_tpe_is_feasible_more_often_than_that_of_random() -> None:
    feasible = {}
    for creator in ("tpe", "random"):
        study = study_of_two(creator, constraints_func=excess)
        study.optimize(two_objectives, n_trials=40)
        feasible[creator] = sum(trial.params["y"] <= 0.4 for trial in study.trials)
    assert feasible["tpe"] > 1.3 * feasible["random"]


def test_a_study_with_several_objectives_continues_from_a_storage(tmp_path: Path) -> None:
    def run(trials_a_time: int, storage: str | None) -> list[tuple[object, ...]]:
        for _ in range(30 // trials_a_time):
            study = optuna.create_study(
                study_name="two", storage=storage, load_if_exists=True,
                directions=["minimize", "maximize"],
                sampler=LocalHPOSampler(PLANE, creator="nsga2", constraints_func=excess),
            )  # fmt: skip
            study.optimize(two_objectives, n_trials=trials_a_time)
        return configs(study)

    assert run(10, f"sqlite:///{tmp_path}/optuna.db") == run(30, None)


def test_constraints_that_the_objective_sets_are_read() -> None:
    if not hasattr(optuna.Trial, "set_constraint"):
        pytest.skip("needs Optuna 5")

    def constrained(trial: optuna.Trial) -> tuple[float, float]:
        values = two_objectives(trial)
        trial.set_constraint("height", trial.params["y"] - 0.4)
        return values

    made = LocalHPOSampler(PLANE, creator="tpe", seed=0)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=made)
    study.optimize(constrained, n_trials=12)
    past = study.get_trials()
    task = made._task(study, from_distributions(PLANE), past)
    assert [one.describe() for one in task.constraints] == ["height <= 0"]
    assert made._convert_trial(past[0], task)[0].violations == (past[0].params["y"] - 0.4,)


def test_bo_takes_the_first_objective_and_warns_once() -> None:
    study = study_of_two("bo", constraints_func=excess)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study.optimize(two_objectives, n_trials=12)
    (warning,) = [one for one in caught if one.category is UserWarning]
    assert str(warning.message) == (
        "bo optimizes value_0 only; value_1, constraint_0 <= 0 are recorded. The creators nsga2, "
        "tpe and gp take all objectives and constraints into account"
    )
    assert min(trial.values[0] for trial in study.trials) < 0.05


def test_cmaes_is_refused_with_several_objectives_or_constraints() -> None:
    with pytest.raises(InputError, match="'cmaes' needs one objective and no constraints"):
        study_of_two("cmaes").optimize(two_objectives, n_trials=1)
    single = optuna.create_study(
        sampler=LocalHPOSampler(PLANE, creator="cmaes", constraints_func=excess)
    )
    with pytest.raises(InputError, match="constraint constraint_0 <= 0"):
        single.optimize(lambda trial: two_objectives(trial)[0], n_trials=1)


def test_an_unknown_creator_is_refused_when_the_sampler_is_made() -> None:
    with pytest.raises(InputError, match=r"a creator must be one of .*; got 'nosuch'"):
        LocalHPOSampler(creator="nosuch")


def test_a_constraint_that_is_nan_is_an_error() -> None:
    study = study_of_two("random", constraints_func=lambda _: [float("nan")])
    with pytest.raises(InputError, match=r"must return numbers; got \[nan\] for trial 0"):
        study.optimize(two_objectives, n_trials=1)


def test_threads_share_one_creator(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []

    class Slow(Engine):
        def propose(self, history: History, n: int = 1) -> list[Proposal]:
            assert not inside, "two threads at once"
            inside.append(history.next_number)
            time.sleep(0.01)
            inside.clear()
            return list(super().propose(history, n))

    opened: list[Slow] = []

    def open_slow(_: Task) -> Slow:
        time.sleep(0.05)
        opened.append(Slow("random"))
        return opened[-1]

    monkeypatch.setattr(sampler, "open_creator", open_slow)
    distributions = {"x": optuna.distributions.FloatDistribution(-5.0, 5.0)}
    study = optuna.create_study(sampler=LocalHPOSampler(distributions))
    study.optimize(lambda trial: trial.suggest_float("x", -5.0, 5.0) ** 2, n_trials=8, n_jobs=4)
    assert len(opened) == 1
    assert len(study.trials) == 8


def test_a_study_ends_when_its_space_is_exhausted() -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(creator="random"))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 2) + trial.suggest_int("y", 1, 1), 9)
    assert sorted(configs(study)) == [(0, 1), (1, 1), (2, 1)]


def test_branches_continue_when_the_common_parameters_are_exhausted() -> None:
    def branching(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            return float(trial.suggest_float("x", 0.0, 1.0))
        return float(trial.suggest_float("y", 0.0, 1.0))

    study = optuna.create_study(sampler=LocalHPOSampler(creator="random"))
    study.optimize(branching, n_trials=12)
    assert {tuple(trial.params) for trial in study.trials} == {("kind", "x"), ("kind", "y")}
    assert len(set(configs(study))) == 12


def test_a_proposal_of_another_thread_is_not_proposed_again() -> None:
    all_have_asked = threading.Barrier(4)

    def waiting(trial: optuna.Trial) -> float:
        all_have_asked.wait(60)
        return int(trial.suggest_int("x", 0, 30))

    space = {"x": optuna.distributions.IntDistribution(0, 30)}
    study = optuna.create_study(sampler=LocalHPOSampler(space, creator="bo"))
    study.optimize(waiting, n_trials=12, n_jobs=4)
    assert len(set(configs(study))) == 12
