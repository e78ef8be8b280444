"""Compares Creators on real XGBoost trainings, in the space of the ready task.

    python scripts/compare_creators.py --creators hybrid,gp,tpe,random --seeds 6

Prints the best score so far after 1, 3, 5 and 10 trials (more is better): mean and standard
error over seeds. `centre` is the hybrid without its model: the centre of the space, then the
engine. The data sets ship inside scikit-learn; no shipped model was trained on them. Needs the
extra `local`.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xgboost
from sklearn import datasets, metrics, model_selection

from localhpo.creator import Creator, History, open_creator
from localhpo.creator.hybrid import Hybrid
from localhpo.llm import open_backend
from localhpo.llm.protocol import Backend
from localhpo.task import CreatorSettings, Task, load
from localhpo.tasks import find
from localhpo.trial import Config, State, Trial

SHOWN = (1, 3, 5, 10)
PROBLEMS = {
    "cancer": "XGBoost on 569 rows, 30 numeric features, two classes (63/37).",
    "diabetes": "XGBoost regressor on 442 rows, 10 numeric features.",
    "wine": "XGBoost on 178 rows, 13 numeric features, two classes.",
}


def objective(name: str) -> Callable[[Config], float]:
    """Return the score of a configuration: R2, or the log loss with its sign turned."""
    loader = {"cancer": datasets.load_breast_cancer}.get(name) or getattr(datasets, f"load_{name}")
    x, y = loader(return_X_y=True)
    if name == "wine":
        y = (y == 1).astype(int)
    x, x_val, y, y_val = model_selection.train_test_split(x, y, test_size=0.3, random_state=0)

    def score(config: Config) -> float:
        settings = {**config, "n_jobs": 1, "verbosity": 0}
        if name == "diabetes":
            regressor = xgboost.XGBRegressor(**settings).fit(x, y)
            return float(metrics.r2_score(y_val, regressor.predict(x_val)))
        classifier = xgboost.XGBClassifier(**settings).fit(x, y)
        return -float(metrics.log_loss(y_val, classifier.predict_proba(x_val)[:, 1]))

    return score


def make(name: str, task: Task, backend: Backend) -> Creator:
    """Return a Creator by name."""
    if name == "centre":
        return Hybrid(None, note="without a model")
    task = dataclasses.replace(task, creator=CreatorSettings(name=name))
    return open_creator(task, backend=backend)


def run(creator: Creator, task: Task, score: Callable[[Config], float], seed: int) -> list[float]:
    """Return the best score after each trial."""
    trials: list[Trial] = []
    for number in range(max(SHOWN)):
        (proposal,) = creator.propose(History(task, tuple(trials), seed, number), 1)
        trials.append(Trial(number, State.COMPLETE, proposal, score=score(proposal.config)))
    return list(np.maximum.accumulate([trial.score for trial in trials]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--creators", default="hybrid,centre,gp,tpe,random")
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    space, backend = load(Path(find("breast-cancer-xgboost"))).space, open_backend("transformers")
    for problem, background in PROBLEMS.items():
        metric = "r2" if problem == "diabetes" else "neg_log_loss"
        task = Task(f"{problem}-xgboost", (), metric, "maximize", space, background=background)
        score = objective(problem)
        for name in options.creators.split(","):
            creator = make(name, task, backend)
            best = np.array([run(creator, task, score, seed) for seed in range(options.seeds)])
            best = best[:, [trial - 1 for trial in SHOWN]]
            error = best.std(axis=0, ddof=1) / np.sqrt(options.seeds)
            cells = [f"{m:8.4f} +- {e:.4f}" for m, e in zip(best.mean(0), error, strict=True)]
            print(f"{problem:9} {name:7}", *cells, flush=True)


if __name__ == "__main__":
    main()
