"""What the three tasks with XGBoost share: options, boosting with reports, and scores of folds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xgboost
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedKFold

from localhpo import report

REPORT_EVERY = 25
"""Boosting rounds between two reports."""

Fold = tuple[xgboost.DMatrix, xgboost.DMatrix]
"""Training and validation."""


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the hyperparameters that all three have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--max_depth", type=int, default=6)
    parser.add_argument("--learning_rate", type=float, default=0.3)
    parser.add_argument("--min_child_weight", type=int, default=1)
    parser.add_argument("--subsample", type=float, default=1.0)
    parser.add_argument("--colsample_bytree", type=float, default=1.0)
    parser.add_argument("--n_estimators", type=int, default=100)
    parser.add_argument("--gamma", type=float, default=0.0)
    parser.add_argument("--reg_alpha", type=float, default=0.0)
    parser.add_argument("--reg_lambda", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def make_folds(x: np.ndarray, y: np.ndarray, count: int) -> list[Fold]:
    """Return stratified folds: the same for every configuration."""
    splitter = StratifiedKFold(count, shuffle=True, random_state=0)
    return [
        (xgboost.DMatrix(x[train], y[train]), xgboost.DMatrix(x[val], y[val]))
        for train, val in splitter.split(x, y)
    ]


def boost(
    settings: Mapping[str, Any],
    folds: Sequence[Fold],
    rounds: int,
    evaluate: Callable[[list[xgboost.Booster]], Mapping[str, float]],
) -> list[xgboost.Booster] | None:
    """Boost one model per fold, side by side, so that each report is a point of one curve.

    Returns:
        the models; None where the trial was stopped early.
    """
    settings = {**settings, "tree_method": "hist", "nthread": 1}
    models = [xgboost.Booster(settings, fold) for fold in folds]
    for done in range(1, rounds + 1):
        for model, (train, _) in zip(models, folds, strict=True):
            model.update(train, done - 1)
        is_due = done % REPORT_EVERY == 0 or done == rounds
        if is_due and report(step=done, **evaluate(models)):
            return None
    return models


def score_classes(models: Sequence[xgboost.Booster], folds: Sequence[Fold]) -> dict[str, float]:
    """Return F1 score and losses of two classes, each the mean over the folds."""
    scores = []
    for model, (train, val) in zip(models, folds, strict=True):
        truth, positive = val.get_label(), model.predict(val)
        scores.append(
            (
                f1_score(truth, positive > 0.5),
                log_loss(truth, positive),
                log_loss(train.get_label(), model.predict(train)),
            )
        )
    val_f1, val_logloss, train_logloss = np.mean(scores, axis=0)
    return {"val_f1": val_f1, "val_logloss": val_logloss, "train_logloss": train_logloss}
