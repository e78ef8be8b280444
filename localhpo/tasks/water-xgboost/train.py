"""Train XGBoost to tell potable water; report its cross-validated F1 score.

    python train.py --data DIR --learning_rate 0.05 --max_depth 6

A fifth of the rows is the test set; the rest makes three stratified folds (both by seed 0), whose
models are trained side by side, so that each report is a point of one curve. One core, about a
second.
"""

import csv
import sys

from localhpo import report
from localhpo.tasks import data

try:
    import numpy as np
    import xgboost
    from sklearn.metrics import f1_score
    from sklearn.model_selection import train_test_split

    from localhpo.tasks import boosting
except ImportError as exc:
    sys.exit(
        f"Error: this task needs xgboost and scikit-learn ({exc}): pip install 'localhpo[tasks]'"
    )

FOLDS = 3
SMALL_ROWS, SMALL_ROUNDS = 400, 30


def parse_arguments():
    parser = boosting.make_parser(__doc__)
    parser.add_argument("--scale_pos_weight", type=float, default=1.0)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument(
        "--gaps",
        choices=("keep", "class-mean"),
        default="keep",
        help="class-mean fills gaps by the label, which leaks it: for comparison alone",
    )
    parser.add_argument("--small", action="store_true", help="few rows and rounds, for a test")
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
    return boosting.make_folds(x, y, FOLDS), xgboost.DMatrix(x_test, y_test)


def main():
    arguments = parse_arguments()
    folds, test = split(*load_table(arguments))
    rounds = min(arguments.n_estimators, SMALL_ROUNDS if arguments.small else sys.maxsize)
    others = ("n_estimators", "data", "gaps", "small")
    settings = {name: value for name, value in vars(arguments).items() if name not in others}
    models = boosting.boost(
        settings | {"objective": "binary:logistic"}, folds, rounds,
        lambda models: boosting.score_classes(models, folds),
    )  # fmt: skip
    if models is None:
        return
    potable = np.mean([model.predict(test) for model in models], axis=0)
    report(step=rounds, test_f1=f1_score(test.get_label(), potable > 0.5))


if __name__ == "__main__":
    main()
