"""The meta-data of a model: configurations, and their regrets on all data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from localhpo.llm.models.description import META_DATA
from localhpo.space import Float, Space
from localhpo.transfer import source_tasks as file
from scripts.build_model import corpus, designs, meta_data, regret_models, trainings
from scripts.build_model.learners import LEARNERS


def record(seed: int, best: float) -> dict[str, object]:
    """Return trainings of nearest neighbors, which are best with so many of them."""
    learner = next(item for item in LEARNERS if item.name == "neighbors")
    rng = np.random.default_rng(seed)
    configs = [trainings.draw(learner, rng) for _ in range(60)]
    scores = [{"accuracy": 1.0 - abs(np.log(c["n_neighbors"] / best)) / 5} for c in configs]
    return {
        "learner": learner.name, "kind": "binary", "seed": seed, "text": "40 rows",
        "configs": configs, "scores": scores,
    }  # fmt: skip


def made(folder: Path, records: list[dict[str, object]]) -> tuple[file.SourceTask, ...]:
    path = folder / "trainings.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    target = folder / META_DATA
    count = meta_data.write_meta_data(corpus.Sources(folder, path, ("training",)), target, seed=1)
    found = file.read_source_tasks(target)
    assert len(found) == count
    return found


def test_trainings_of_a_kind_become_a_source_task(tmp_path: Path) -> None:
    (source_task,) = made(tmp_path, [record(3, 4.0), record(4, 9.0), record(5, 20.0)])
    assert (source_task.task.name, source_task.task.metric) == ("neighbors", "accuracy")
    assert source_task.task.direction == "maximize"
    assert source_task.data_sets == ("3", "4", "5")
    space, regrets = source_task.task.space, np.array(source_task.regrets)
    assert len({space.key(config) for config in source_task.configs}) == len(source_task.configs)
    assert regrets.shape == (3, len(source_task.configs))
    assert 0.0 <= regrets.min() < 0.1
    assert regrets.max() <= corpus.WORST
    assert len(source_task.lengths) == len(space)
    for row, best in zip(regrets, (4.0, 9.0, 20.0), strict=True):
        found = source_task.configs[int(row.argmin())]["n_neighbors"]
        assert abs(np.log(float(found) / best)) < 0.6


@pytest.mark.slow
def test_a_source_task_may_be_of_a_design_that_is_really_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_data, "BEST", 8)
    monkeypatch.setattr(meta_data, "ORDINARY", 6)
    monkeypatch.setattr(designs, "DRAWN", 6)
    monkeypatch.setattr(designs, "EACH", 3)
    monkeypatch.setattr(designs, "ROUNDS", 1)
    records = [record(2, 4.0), record(3, 9.0), record(8, 20.0)]  # data sets of a few hundred rows
    (before,) = made(tmp_path, records)
    monkeypatch.setattr(meta_data, "REAL", {("neighbors", "binary"): ("accuracy",)})
    (after,) = made(tmp_path, records)
    assert after.data_sets == before.data_sets
    assert after.configs[6 : 6 + len(before.configs)] == before.configs
    assert len(after.configs) == 12 + len(before.configs) + 3 * designs.ROUNDS
    learner = next(item for item in LEARNERS if item.name == "neighbors")
    assert len(after.regrets) == 3
    trained = trainings.run_design(learner, "binary", 3, after.configs)["scores"]
    accuracy, row = np.array([one["accuracy"] for one in trained]), np.array(after.regrets[1])
    assert row[int(accuracy.argmax())] == 0.0
    assert np.all(np.diff(row[np.argsort(-accuracy)]) >= 0.0)
    (path,) = tmp_path.glob("design-*.json")  # what was trained is not trained again
    kept = json.loads(path.read_text())
    kept["scores"]["2"].reverse()
    path.write_text(json.dumps(kept))
    (again,) = made(tmp_path, records)
    assert again.regrets[0] != after.regrets[0]
    assert again.regrets[1:] == after.regrets[1:]


def test_half_of_what_a_design_draws_has_small_penalties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(designs, "DRAWN", 6)
    monkeypatch.setattr(designs, "ROUNDS", 0)
    space = Space([Float("rate", 1e-3, 1.0, log=True), Float("gamma", 0.0, 5.0)])
    learner = next(item for item in LEARNERS if item.name == "xgboost")
    design = designs.Design(tmp_path / "design.json", space, learner, "regression", [3])
    design.grow([], ("r2",), seed=0)
    gammas = [config["gamma"] for config in design.configs]
    assert max(gammas[designs.DRAWN : 2 * designs.DRAWN]) <= 0.5 < max(gammas[: designs.DRAWN])


def test_the_class_that_f1_is_of_is_the_rarer_one() -> None:
    for seed in range(12):
        data, _ = trainings.make_data("binary", np.random.default_rng(seed))
        assert np.mean(np.concatenate([data.y, data.y_valid])) <= 0.5


def test_too_few_data_sets_give_no_source_task(tmp_path: Path) -> None:
    assert made(tmp_path, [record(3, 4.0), record(4, 9.0)]) == ()


def test_a_data_set_with_equal_values_is_left_out(tmp_path: Path) -> None:
    flat = record(9, 4.0)
    flat["scores"] = [{"accuracy": 0.5}] * 60
    (source_task,) = made(tmp_path, [record(3, 4.0), flat, record(4, 9.0), record(5, 20.0)])
    assert source_task.data_sets == ("3", "4", "5")


def test_regrets_are_0_at_the_best_and_1_at_the_median() -> None:
    scores = np.concatenate([np.linspace(0.0, 1.0, meta_data.DRAWS), [1.5, np.nan]])
    found = regret_models.compute_regrets(scores[None, None], meta_data.DRAWS)[0, 0]
    assert found[-2] == 0.0
    assert found[-1] == corpus.WORST
    assert found[meta_data.DRAWS - 1] == pytest.approx(0.5)
    assert np.median(found[: meta_data.DRAWS]) == pytest.approx(1.0)
