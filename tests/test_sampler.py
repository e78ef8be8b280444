"""The Creator inside an Optuna study."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from localhpo import LocalHPOSampler, sampler
from localhpo.creator.engines import Engine
from localhpo.creator.protocol import History
from localhpo.errors import InputError, TaskError
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


@pytest.mark.parametrize("creator", ["random", "tpe", "cmaes"])
def test_a_study_runs_without_leaving_optuna(creator: str) -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(SPACE, creator=creator, seed=1))
    study.optimize(objective, n_trials=8)
    assert len(set(configs(study))) == 8
    again = optuna.create_study(sampler=LocalHPOSampler(SPACE, creator=creator, seed=1))
    again.optimize(objective, n_trials=8)
    assert configs(again) == configs(study)


def test_an_unknown_space_is_learned_from_the_first_trial() -> None:
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
def test_a_choice_without_counterpart_is_drawn_at_random() -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(creator="random"))

    def objective(trial: optuna.Trial) -> float:
        (first, _) = trial.suggest_categorical("sizes", [(8, 8), (16, 8)])
        return first + trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=8)
    assert {trial.params["sizes"] for trial in study.trials} == {(8, 8), (16, 8)}


def test_origins_and_reasons_are_kept_with_the_trials() -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(SPACE, creator="tpe"))
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        assert trial.system_attrs["localhpo:origin"] == "engine:tpe"
        assert trial.system_attrs["localhpo:rationale"]


def test_an_engine_goes_on_from_a_storage(tmp_path: Path) -> None:
    """CMA-ES is rebuilt from what it left with the trials, in a storage that keeps little."""

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


def test_failed_and_pruned_trials_are_no_scores() -> None:
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


def test_what_is_fixed_reaches_the_creator_and_not_the_objective(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, object]] = []

    def opened(task: Task) -> Engine:
        told.append(dict(task.fixed))
        return Engine("random")

    monkeypatch.setattr(sampler, "open_creator", opened)
    study = optuna.create_study(sampler=LocalHPOSampler(SPACE, fixed={"trees": 300}))
    study.optimize(objective, n_trials=1)
    assert told == [{"trees": 300}]
    assert study.trials[0].params.keys() == SPACE.keys()
    both = optuna.create_study(sampler=LocalHPOSampler(SPACE, fixed={"depth": 3}))
    with pytest.raises(TaskError, match="depth: is tuned"):
        both.optimize(objective, n_trials=1)


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=LocalHPOSampler(SPACE, creator="random")
    )
    with pytest.raises(InputError, match="one objective"):
        study.ask().suggest_float("lr", 1e-4, 1e-1, log=True)
        study.optimize(lambda trial: (objective(trial), 0.0), n_trials=1)


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


def test_a_study_ends_where_its_space_does() -> None:
    study = optuna.create_study(sampler=LocalHPOSampler(creator="random"))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 2) + trial.suggest_int("y", 1, 1), 9)
    assert sorted(configs(study)) == [(0, 1), (1, 1), (2, 1)]


def test_a_branch_goes_on_when_what_all_trials_share_is_used_up() -> None:
    def branching(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            return float(trial.suggest_float("x", 0.0, 1.0))
        return float(trial.suggest_float("y", 0.0, 1.0))

    study = optuna.create_study(sampler=LocalHPOSampler(creator="random"))
    study.optimize(branching, n_trials=12)
    assert {tuple(trial.params) for trial in study.trials} == {("kind", "x"), ("kind", "y")}
    assert len(set(configs(study))) == 12


def test_a_proposal_that_is_not_suggested_yet_is_known_to_the_next() -> None:
    all_have_asked = threading.Barrier(4)

    def waiting(trial: optuna.Trial) -> float:
        all_have_asked.wait(60)
        return int(trial.suggest_int("x", 0, 30))

    space = {"x": optuna.distributions.IntDistribution(0, 30)}
    study = optuna.create_study(sampler=LocalHPOSampler(space, creator="bo"))
    study.optimize(waiting, n_trials=12, n_jobs=4)
    assert len(set(configs(study))) == 12
