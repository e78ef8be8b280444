"""Train XGBoost to predict house prices; report its R2 score.

    python train.py --data DIR --learning_rate 0.05 --max_depth 4

Seed 0 splits the rows: three fifths to train on, a fifth for validation, a fifth for the test.
One core, one to three seconds.
"""

import csv
import sys

from localhpo import report
from localhpo.tasks import data

try:
    import numpy as np
    import xgboost
    from sklearn.metrics import r2_score

    from localhpo.tasks import boosting
except ImportError as exc:
    sys.exit(
        f"Error: this task needs xgboost and scikit-learn ({exc}): pip install 'localhpo[tasks]'"
    )

NUMBERS = ("SquareFeet", "Bedrooms", "Bathrooms", "YearBuilt")
NEIGHBORHOODS = ("Rural", "Suburb", "Urban")
SMALL_ROWS, SMALL_ROUNDS = 500, 30


def parse_arguments():
    parser = boosting.make_parser(__doc__)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--small", action="store_true", help="few rows and rounds, for a test")
    return parser.parse_args()


def load_table(arguments):
    """Return the features (rows, 7) and the prices."""
    folder = data.find(__file__, arguments.data)
    with data.open_text(folder, "housing_price_dataset.csv") as file:
        rows = list(csv.DictReader(file))[: SMALL_ROWS if arguments.small else None]
    x = [
        [float(row[name]) for name in NUMBERS] + [row["Neighborhood"] == n for n in NEIGHBORHOODS]
        for row in rows
    ]
    return np.array(x, dtype=np.float32), np.array([float(row["Price"]) for row in rows])


def split(x, y):
    """Return train, validation and test: the same for every configuration."""
    order = np.random.default_rng(0).permutation(len(x))
    parts = np.split(order, [len(x) * 3 // 5, len(x) * 4 // 5])
    return [xgboost.DMatrix(x[part], y[part]) for part in parts]


def r2(model, part):
    return r2_score(part.get_label(), model.predict(part))


def main():
    arguments = parse_arguments()
    train, val, test = split(*load_table(arguments))
    rounds = min(arguments.n_estimators, SMALL_ROUNDS if arguments.small else sys.maxsize)
    others = ("n_estimators", "data", "small")
    settings = {name: value for name, value in vars(arguments).items() if name not in others}
    models = boosting.boost(
        settings | {"objective": "reg:squarederror"}, [(train, val)], rounds,
        lambda models: {"val_r2": r2(models[0], val), "train_r2": r2(models[0], train)},
    )  # fmt: skip
    if models is None:
        return
    report(step=rounds, test_r2=r2(models[0], test))


if __name__ == "__main__":
    main()
