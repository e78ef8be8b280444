"""Train XGBoost on scikit-learn's breast cancer data; report its cross-validated F1 score.

    python train.py --learning_rate 0.1 --max_depth 4

The five folds are trained side by side, so that each report is a point of one curve: the mean
over the folds after so many boosting rounds. One core, one to three seconds.
"""

import argparse
import sys

from localhpo import report

try:
    import numpy as np
    import xgboost
    from sklearn.datasets import load_breast_cancer
    from sklearn.metrics import f1_score, log_loss
    from sklearn.model_selection import StratifiedKFold
except ImportError as exc:
    sys.exit(
        f"Error: this task needs xgboost and scikit-learn ({exc}): pip install 'localhpo[local]'"
    )

FOLDS = 5
REPORT_EVERY = 25


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max_depth", type=int, default=6)
    parser.add_argument("--learning_rate", type=float, default=0.3)
    parser.add_argument("--min_child_weight", type=int, default=1)
    parser.add_argument("--subsample", type=float, default=1.0)
    parser.add_argument("--colsample_bytree", type=float, default=1.0)
    parser.add_argument("--n_estimators", type=int, default=100)
    parser.add_argument("--gamma", type=float, default=0.0)
    parser.add_argument("--reg_alpha", type=float, default=0.0)
    parser.add_argument("--reg_lambda", type=float, default=1.0)
    parser.add_argument("--scale_pos_weight", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_folds():
    """Return (train, validation) per fold: the same folds for every configuration."""
    x, is_benign = load_breast_cancer(return_X_y=True)
    y = 1 - is_benign
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return [
        (xgboost.DMatrix(x[train], y[train]), xgboost.DMatrix(x[val], y[val]))
        for train, val in splitter.split(x, y)
    ]


def evaluate(models, folds):
    """Return the means over the folds."""
    scores = []
    for model, (train, val) in zip(models, folds, strict=True):
        truth, malignant = val.get_label(), model.predict(val)
        scores.append(
            (
                f1_score(truth, malignant > 0.5),
                log_loss(truth, malignant),
                log_loss(train.get_label(), model.predict(train)),
            )
        )
    val_f1, val_logloss, train_logloss = np.mean(scores, axis=0)
    return {"val_f1": val_f1, "val_logloss": val_logloss, "train_logloss": train_logloss}


def main():
    settings = vars(parse_arguments())
    rounds = settings.pop("n_estimators")
    settings |= {"objective": "binary:logistic", "tree_method": "hist", "nthread": 1}
    folds = load_folds()
    models = [xgboost.Booster(settings, fold) for fold in folds]
    for done in range(1, rounds + 1):
        for model, (train, _) in zip(models, folds, strict=True):
            model.update(train, done - 1)
        is_due = done % REPORT_EVERY == 0 or done == rounds
        if is_due and report(step=done, **evaluate(models, folds)):
            break


if __name__ == "__main__":
    main()
