"""The past studies that a model takes along: the best first, no two alike, and readable again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from localhpo.experience import refusal, shipped
from scripts.build_model import corpus, studies, trainings
from scripts.build_model.learners import LEARNERS


def test_each_training_becomes_a_study_of_its_best_and_of_ordinary_draws(tmp_path: Path) -> None:
    learner = next(item for item in LEARNERS if item.name == "neighbors")
    rng = np.random.default_rng(0)
    configs = [trainings.draw(learner, rng) for _ in range(40)]
    scores = [{"accuracy": 1.0 - abs(np.log(c["n_neighbors"] / 9.0)) / 5} for c in configs]
    record = {
        "learner": learner.name, "kind": "binary", "seed": 3, "text": "40 rows",
        "configs": configs, "scores": scores,
    }  # fmt: skip
    records = tmp_path / "trainings.jsonl"
    records.write_text(json.dumps(record) + "\n")
    target = tmp_path / "studies.json.gz"
    assert studies.write(corpus.Sources(tmp_path, records, ("training",)), target, seed=1) == 1
    (past,) = shipped.read(target)
    assert past.study == "neighbors/3/accuracy"
    assert past.task.direction == "maximize"
    assert refusal(past) is None
    found = [trial.score for trial in past.scored]
    assert len(found) == studies.BEST + studies.OTHERS
    assert found[0] > np.median(found)
    best = [trial.config for trial in past.scored[: studies.BEST]]
    assert 3 <= best[0]["n_neighbors"] <= 27
    # An ordinary draw may be as good as one of the best, and like it; these are not alike.
    assert len({past.task.space.key(config) for config in best}) >= studies.BEST - 1
