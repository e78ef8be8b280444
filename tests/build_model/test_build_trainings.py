"""The data sets that real trainings are made on."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.build_model import trainings
from scripts.build_model.learners import Split


def r2(data: Split) -> float:
    """Return what a forest explains of the values that it has not seen."""
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(30, min_samples_leaf=5, random_state=0, n_jobs=1)
    found = model.fit(data.x, data.y).predict(data.x_valid)
    return 1.0 - float(np.mean((found - data.y_valid) ** 2)) / float(np.var(data.y_valid))


def test_little_can_be_explained_of_faint_data_sets() -> None:
    for seed in range(5):
        data, text = trainings.make_data("regression", np.random.default_rng(seed), faint=True)
        assert r2(data) < 0.3
        assert "regression" in text
    data, _ = trainings.make_data("binary", np.random.default_rng(1), faint=True)
    assert set(data.y) == {0, 1}


@pytest.mark.parametrize("seed", [trainings.SEEDS + 3, trainings.FAINT_SEEDS + 3])
def test_the_seed_says_which_of_the_two(seed: int) -> None:
    learner, kind, _ = next(iter(trainings.plan(1)))
    faint = seed >= trainings.FAINT_SEEDS
    _, text = trainings.make_data(kind, np.random.default_rng(seed), faint=faint)
    assert trainings.run(learner, kind, seed, evaluations=1, limit_s=60.0)["text"] == text


def test_a_tenth_more_are_faint_and_come_last() -> None:
    seeds = [seed for _, _, seed in trainings.plan(20)]
    assert seeds[:20] == list(range(trainings.SEEDS, trainings.SEEDS + 20))
    assert seeds[20:] == [trainings.FAINT_SEEDS, trainings.FAINT_SEEDS + 1]
    learners = {learner.name for learner, _, _ in trainings.plan(20)}
    assert "neighbors" in learners
