"""Guesses from the name of a metric its direction, and whether it is measured on held-out data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from localhpo.objective import Direction

_MORE_IS_BETTER = (
    "acc|accuracy|f1|f1score|auc|auroc|roc|auprc|ap|map|precision|recall|sensitivity|specificity"
    "|r2|score|bleu|rouge|chrf|meteor|iou|miou|dice|psnr|ssim|reward|return|hits|mrr|ndcg|kappa"
    "|mcc|correlation|pearson|spearman|throughput|top1|top5|em|pass"
)
_LESS_IS_BETTER = (
    "loss|error|err|mse|rmse|mae|mape|rmsle|perplexity|ppl|nll|logloss|crossentropy|ce|bpb|bpc|wer"
    "|cer|fid|regret|cost|latency|brier|ece|time|seconds|divergence|kl"
)
_HELD_OUT = "val|valid|validation|dev|eval|test|heldout|holdout|cv"


def choose_metric(names: Sequence[str]) -> str | None:
    """Return the metric to optimize: preferably on held-out data and of known direction."""

    def rank(name: str) -> tuple[bool, bool]:
        return _says(name, _HELD_OUT), guess_direction(name) is not None

    return max(names, key=rank, default=None)


def guess_direction(name: str) -> Direction | None:
    """Return the direction that the name of a metric implies, or None."""
    if _says(name, _LESS_IS_BETTER):
        return "minimize"
    return "maximize" if _says(name, _MORE_IS_BETTER) else None


def _says(name: str, words: str) -> bool:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.search(rf"(?:^|[^a-z])(?:{words})(?:$|[^a-z])", snake) is not None
