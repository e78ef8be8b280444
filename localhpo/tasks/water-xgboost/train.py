"""Train XGBoost to tell potable water; report its cross-validated F1 score.

    python train.py --data DIR --learning_rate 0.05 --max_depth 6

A fifth of the rows is the test set; the rest makes three stratified folds (both by seed 0), whose
models are trained side by side, so that each report is a point of one curve. One core, about a
second.
"""

import argparse
import csv
import sys

from localhpo import report
from localhpo.tasks import data

try:
    import numpy as np
    import xgboost
    from sklearn.metrics import f1_score, log_loss
    from sklearn.model_selection import StratifiedKFold, train_test_split
except ImportError as exc:
    sys.exit(
        f"Error: this task needs xgboost and scikit-learn ({exc}): pip install 'localhpo[tasks]'"
    )

FOLDS = 3
REPORT_EVERY = 25
SMALL_ROWS, SMALL_ROUNDS = 400, 30


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
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument(
        "--gaps",
        choices=("keep", "class-mean"),
        default="keep",
        help="class-mean fills gaps by the label, which leaks it: for comparison alone",
    )
    parser.add_argument("--small", action="store_true", help="few rows and rounds, for a test")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_table(arguments):
    """Return the features (rows, 9), NaN where there are gaps, and the labels, 0 or 1."""
    folder = data.find(__file__, arguments.data)
    with data.open_text(folder, "water_potability.csv") as file:
        rows = list(csv.reader(file))[1:]
    table = np.array([[float(cell or "nan") for cell in row] for row in rows])
    x, y = table[:, :-1], table[:, -1].astype(int)
    if arguments.gaps == "class-mean":
        for label in (0, 1):
            of_class = x[y == label]
            x[y == label] = np.where(np.isnan(of_class), np.nanmean(of_class, axis=0), of_class)
    return (x[:SMALL_ROWS], y[:SMALL_ROWS]) if arguments.small else (x, y)


def split(x, y):
    """Return (train, validation) per fold, and the test set: the same for every configuration."""
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    folds = [
        (xgboost.DMatrix(x[train], y[train]), xgboost.DMatrix(x[val], y[val]))
        for train, val in splitter.split(x, y)
    ]
    return folds, xgboost.DMatrix(x_test, y_test)


def evaluate(models, folds):
    """Return the means over the folds."""
    scores = []
    for model, (train, val) in zip(models, folds, strict=True):
        truth, potable = val.get_label(), model.predict(val)
        scores.append(
            (
                f1_score(truth, potable > 0.5),
                log_loss(truth, potable),
                log_loss(train.get_label(), model.predict(train)),
            )
        )
    val_f1, val_logloss, train_logloss = np.mean(scores, axis=0)
    return {"val_f1": val_f1, "val_logloss": val_logloss, "train_logloss": train_logloss}


def main():
    arguments = parse_arguments()
    folds, test = split(*load_table(arguments))
    rounds = min(arguments.n_estimators, SMALL_ROUNDS if arguments.small else sys.maxsize)
    others = ("n_estimators", "data", "gaps", "small")
    settings = {name: value for name, value in vars(arguments).items() if name not in others}
    settings |= {"objective": "binary:logistic", "tree_method": "hist", "nthread": 1}
    models = [xgboost.Booster(settings, fold) for fold in folds]
    for done in range(1, rounds + 1):
        for model, (train, _) in zip(models, folds, strict=True):
            model.update(train, done - 1)
        is_due = done % REPORT_EVERY == 0 or done == rounds
        if is_due and report(step=done, **evaluate(models, folds)):
            return
    potable = np.mean([model.predict(test) for model in models], axis=0)
    report(step=rounds, test_f1=f1_score(test.get_label(), potable > 0.5))


if __name__ == "__main__":
    main()
