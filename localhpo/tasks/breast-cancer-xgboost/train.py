"""Train XGBoost on scikit-learn's breast cancer data; report its cross-validated F1 score.

    python train.py --learning_rate 0.1 --max_depth 4

The five folds are trained side by side, so that each report is a point of one curve: the mean
over the folds after so many boosting rounds. One core, one to three seconds.
"""

import sys

try:
    from sklearn.datasets import load_breast_cancer

    from localhpo.tasks import boosting
except ImportError as exc:
    sys.exit(
        f"Error: this task needs xgboost and scikit-learn ({exc}): pip install 'localhpo[local]'"
    )

FOLDS = 5


def main():
    parser = boosting.make_parser(__doc__)
    parser.add_argument("--scale_pos_weight", type=float, default=1.0)
    settings = vars(parser.parse_args())
    rounds = settings.pop("n_estimators")
    x, is_benign = load_breast_cancer(return_X_y=True)
    folds = boosting.make_folds(x, 1 - is_benign, FOLDS)
    boosting.boost(
        settings | {"objective": "binary:logistic"}, folds, rounds,
        lambda models: boosting.score_classes(models, folds),
    )  # fmt: skip


if __name__ == "__main__":
    main()
