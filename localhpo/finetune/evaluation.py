"""The gate: a fine-tuned model is used only if it beats its base on tasks that it never saw.

Two questions on each held-out task: are configurations that hindsight calls good likelier, and
does a study that is replayed with it find good ones earlier? The second is answered by a function
that is handed in: it runs the Creator with a model on what the task's own trials make one expect,
and returns the mean regret of its first trials. Tasks are the pairs of the test, not seeds or
trials: a model that is better on one task many times over has been seen to be better once. (With
task and seed as pairs, models whose merit differs by task but is none on average passed in 19 of
100 draws instead of 5.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from localhpo.finetune.dataset import LEAST_HELD_OUT
from localhpo.llm.tuning_record import Gate
from localhpo.transfer import PastStudy

SIGNIFICANT = 0.05

ReplayStudy = Callable[[PastStudy, Path], float]
"""From a held-out study and the folder of a model to the mean regret of the first trials."""


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """BaseModel and candidate on one held-out task; smaller is better."""

    base_loss: float
    tuned_loss: float
    base_regret: float
    tuned_regret: float


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What the gate says."""

    gate: Gate
    why: str
    numbers: Mapping[str, float]


def evaluate_candidate(pairs: Sequence[TaskComparison], *, force: bool = False) -> EvaluationResult:
    """Return whether the candidate may be used, and why.

    Args:
        pairs: one for each held-out task.
        force: the user wants it used all the same.
    """
    numbers = _numbers(pairs)
    gate, why = _verdict(pairs, numbers)
    if force and gate != "accepted":
        return EvaluationResult("forced", f"by --force, though {why}", numbers)
    return EvaluationResult(gate, why, numbers)


def _verdict(pairs: Sequence[TaskComparison], numbers: Mapping[str, float]) -> tuple[Gate, str]:
    told = sum(pair.base_regret != pair.tuned_regret for pair in pairs)
    if told < LEAST_HELD_OUT:
        return "undecided", (
            f"it cannot be told: replays differ on {told} of {len(pairs)} held-out tasks, and "
            f"{LEAST_HELD_OUT} are needed"
        )
    if numbers["tuned_loss"] >= numbers["base_loss"]:
        return "refused", (
            "good configurations of held-out tasks are not likelier: loss "
            f"{numbers['tuned_loss']:.3f}, base {numbers['base_loss']:.3f}"
        )
    regrets = f"{numbers['tuned_regret']:.3f}, base {numbers['base_regret']:.3f}"
    if numbers["p"] >= SIGNIFICANT:
        return "refused", f"replays are not better: regret {regrets}, p = {numbers['p']:.3f}"
    return "accepted", f"regret in replays of held-out tasks {regrets}, p = {numbers['p']:.3g}"


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
    """Return the one-sided p of Wilcoxon's signed-rank test that differences are below 0."""
    from scipy.stats import wilcoxon

    if not any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="less").pvalue)
