"""Evaluation of a fine-tuned model: it is used only if it beats its base on tasks kept aside.

Two comparisons on each held-out task: the loss of good configurations, and the regret of a
replayed study. A function that is handed in replays: it runs the Creator with a model on a
surrogate of the task's own trials, and returns the mean regret of the first trials. The test pairs
base and candidate by task, not by seed or trial: many seeds of one task are not independent. (With
pairs of task and seed, models that are better on some tasks and worse on others, but not better on
average, passed in 19 of 100 draws instead of 5.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from localhpo.finetune.dataset import MIN_HELD_OUT
from localhpo.llm.models.card import VersionStatus
from localhpo.transfer import PastStudy

SIGNIFICANT = 0.05
"""Largest p with which a candidate is accepted."""

ReplayStudy = Callable[[PastStudy, Path], float]
"""From a held-out study and a model folder to the mean regret of the first trials."""


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """Losses and regrets of base and candidate on one held-out task; smaller is better."""

    base_loss: float
    tuned_loss: float
    base_regret: float
    tuned_regret: float


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Result of the evaluation."""

    status: VersionStatus
    reason: str
    numbers: Mapping[str, float]


def evaluate_candidate(pairs: Sequence[TaskComparison], *, force: bool = False) -> EvaluationResult:
    """Return whether the candidate may be used, with the reason.

    Args:
        pairs: one comparison for each held-out task.
        force: whether to use it even if it is not better.
    """
    numbers = _numbers(pairs)
    status, reason = _decide(pairs, numbers)
    if force and status != "accepted":
        return EvaluationResult("forced", f"by --force, though {reason}", numbers)
    return EvaluationResult(status, reason, numbers)


def _decide(
    pairs: Sequence[TaskComparison], numbers: Mapping[str, float]
) -> tuple[VersionStatus, str]:
    different = sum(pair.base_regret != pair.tuned_regret for pair in pairs)
    if different < MIN_HELD_OUT:
        return "undecided", (
            f"too few tasks to decide: results differ on {different} of {len(pairs)} tasks kept "
            f"aside for the evaluation, and {MIN_HELD_OUT} are needed"
        )
    if numbers["tuned_loss"] >= numbers["base_loss"]:
        return "refused", (
            "it does not predict good configurations of other tasks better: loss "
            f"{numbers['tuned_loss']:.3f}, base {numbers['base_loss']:.3f}"
        )
    regrets = f"{numbers['tuned_regret']:.3f}, base {numbers['base_regret']:.3f}"
    if numbers["p"] >= SIGNIFICANT:
        return "refused", f"its studies are not better: regret {regrets}, p = {numbers['p']:.3f}"
    return "accepted", f"its studies are better: regret {regrets}, p = {numbers['p']:.3g}"


def _numbers(pairs: Sequence[TaskComparison]) -> dict[str, float]:
    if not pairs:
        return {"held_out_tasks": 0}
    return {
        "held_out_tasks": len(pairs),
        "base_loss": fmean(pair.base_loss for pair in pairs),
        "tuned_loss": fmean(pair.tuned_loss for pair in pairs),
        "base_regret": fmean(pair.base_regret for pair in pairs),
        "tuned_regret": fmean(pair.tuned_regret for pair in pairs),
        "p": _p([pair.tuned_regret - pair.base_regret for pair in pairs]),
    }


def _p(differences: Sequence[float]) -> float:
    """Return the one-sided p of Wilcoxon's signed-rank test for differences below 0."""
    from scipy.stats import wilcoxon

    if not any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="less").pvalue)
