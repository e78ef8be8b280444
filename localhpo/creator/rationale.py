"""A reason for a proposal, computed from the evidence.

Engines and small models give no reasons. What can be computed for them is what the proposal
changes against the best trial, and which trend among the trials those changes follow or oppose,
by the first objective. It describes the proposal; it does not claim to be how it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.context import best_by_first_objective, rank_trials
from localhpo.space import Categorical
from localhpo.trial import Config, State, Trial

if TYPE_CHECKING:
    from localhpo.creator.protocol import History
    from localhpo.space import Parameter, Space
    from localhpo.task import Task

_MAX_CHANGES = 4
"""Changes that are listed; the rest is counted."""
_MIN_TREND_TRIALS = 5
"""Complete trials that a trend needs."""
_MIN_TREND_STRENGTH = 0.5
"""Absolute rank correlation from which it is a trend."""
_MAX_EVIDENCE = 5


@dataclass(frozen=True, slots=True)
class _Trend:
    """How a parameter correlates with the metric among the complete trials that have it."""

    parameter: Parameter
    rho: float
    """Spearman's rank correlation of the parameter and the metric."""
    trials: Sequence[Trial]
    """Worst to best."""


def compute_rationale(history: History, config: Config) -> tuple[str, tuple[int, ...]]:
    """Return the reason in words and the numbers of the trials that it rests on."""
    task = history.task
    best = best_by_first_objective(history)
    if best is None:
        return _without_value(history)
    anchor = f"against trial {best.number} ({task.metric} {best.values[0]:.4g})"
    changes = _describe_changes(task.space, best.config, config)
    sentence = f"{anchor}: {_join(changes)}"
    trend = _strongest_trend(task, history.trials, best.config, config)
    if trend is None:
        return sentence, (best.number,)
    others = [trial.number for trial in reversed(trend.trials) if trial.number != best.number]
    reason = f"{sentence}; {_describe_trend(task, trend, best.config, config)}"
    return reason, (best.number, *others[: _MAX_EVIDENCE - 1])


def _without_value(history: History) -> tuple[str, tuple[int, ...]]:
    failed = [trial for trial in history.trials if trial.state is State.FAILED]
    if not failed:
        return "proposed before any trial had a value", ()
    last = failed[-1]
    cause = "" if last.failure is None else f" ({last.failure.cause.value})"
    return (
        f"proposed before any trial had a value; trial {last.number} failed{cause}",
        tuple(trial.number for trial in failed[-_MAX_EVIDENCE:]),
    )


def _describe_changes(space: Space, old: Config, new: Config) -> list[str]:
    """Return what differs, the largest step first."""
    steps: list[tuple[float, str]] = []
    for parameter in space.parameters:
        name = parameter.name
        if name in old and name in new:
            if old[name] != new[name]:
                size = _step(parameter, old, new)
                before, after = (parameter.brief_text(config[name]) for config in (old, new))
                steps.append((size, f"{name} {before} -> {after}"))
        elif name in new:
            steps.append((1.0, f"{name} {parameter.brief_text(new[name])} (not used there)"))
        elif name in old:
            steps.append((1.0, f"{name} no longer used"))
    return [text for _, text in sorted(steps, key=lambda step: -step[0])]


def _step(parameter: Parameter, old: Config, new: Config) -> float:
    if isinstance(parameter, Categorical):
        return 1.0
    return abs(parameter.to_unit(new[parameter.name]) - parameter.to_unit(old[parameter.name]))


def _join(changes: Sequence[str]) -> str:
    if not changes:
        return "nothing changed"
    more = len(changes) - _MAX_CHANGES
    return ", ".join(changes[:_MAX_CHANGES]) + (f" and {more} more" if more > 0 else "")


def _strongest_trend(
    task: Task, trials: Sequence[Trial], old: Config, new: Config
) -> _Trend | None:
    """Return the strongest trend along a changed parameter, if it is one."""
    ranked = rank_trials(trials, task.direction)
    complete = [trial for trial in ranked if trial.state is State.COMPLETE and trial.values]
    trends: list[_Trend] = []
    for parameter in task.space.parameters:
        name = parameter.name
        is_changed = name in old and name in new and old[name] != new[name]
        if isinstance(parameter, Categorical) or not is_changed:
            continue
        seen = [trial for trial in complete if name in trial.config]
        if len(seen) >= _MIN_TREND_TRIALS:
            units = [parameter.to_unit(trial.config[name]) for trial in seen]
            rho = spearman(units, [trial.values[0] for trial in seen])
            trends.append(_Trend(parameter, rho, seen))
    strongest = max(trends, key=lambda trend: abs(trend.rho), default=None)
    if strongest is None or abs(strongest.rho) < _MIN_TREND_STRENGTH:
        return None
    return strongest


def _describe_trend(task: Task, trend: _Trend, old: Config, new: Config) -> str:
    name = trend.parameter.name
    good = "higher" if task.direction == "maximize" else "lower"
    side = "higher" if (trend.rho > 0) == (good == "higher") else "lower"
    rises = trend.parameter.to_unit(new[name]) > trend.parameter.to_unit(old[name])
    against = "" if rises == (side == "higher") else "; this goes the other way"
    return (
        f"in {len(trend.trials)} trials, {side} {name} went with {good} {task.metric} "
        f"(Spearman {trend.rho:+.2f}){against}"
    )


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the rank correlation of two sequences; 0 where one of them is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return 0.0 if scale == 0.0 else float(x @ y) / scale


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Return the rank of each value; equal ones share their mean rank."""
    array = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
