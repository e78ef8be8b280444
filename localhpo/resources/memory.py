"""Estimates of how much memory a trial will need, from measured peaks of earlier trials.

    estimator = MemoryEstimator(space, MemoryLimit(capacity_mb=8000, what="GPU memory"))
    estimate = estimator.estimate(config, observations)
    estimate.mb         # to reserve
    estimate.reason     # "99 % sure, from 12 measured trials"
    estimator.explain_refusal(config, observations)     # why it cannot fit, or None

Two quantiles, because two mistakes cost differently. What is *reserved* is an upper quantile: too
little causes an out-of-memory failure beside other trials. What is *refused* is decided by a lower
one: a configuration that might fit is run exclusively, and so measured.

While nothing is measured, a whole device is reserved. Memory that the task declares is reserved
instead of the estimate; configurations that cannot fit are refused all the same.

Observations come from this study and from earlier ones of the same task. The peak of a trial that
ran out of memory is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from localhpo.trial import Cause, Config, Failure, State, Trial

if TYPE_CHECKING:
    from localhpo.resources.peaks import PeakModel
    from localhpo.space import Space

MemoryKind = Literal["host", "device"]

RESERVE_PROBABILITY = 0.99
"""Probability that a trial stays below what is reserved for it."""
REFUSE_PROBABILITY = 0.2
"""Largest probability that a refused configuration would have fitted."""
MARGIN = 1.05
"""Factor on what is reserved: peaks are polled, and allocators hold some memory in reserve."""
NEGLIGIBLE_SHARE = 1 / 16
"""Share of the capacity: while every peak is below, nothing is refused, and no model is fitted."""
REFIT_SHARE = 0.1
"""The peak model is fitted again when the number of observations has grown by this share."""

_OUT_OF_MEMORY: dict[Cause, MemoryKind] = {
    Cause.OUT_OF_MEMORY_HOST: "host",
    Cause.OUT_OF_MEMORY_DEVICE: "device",
}


@dataclass(frozen=True, slots=True)
class PeakObservation:
    """Measured peak memory of one trial."""

    config: Config
    peak_mb: float
    is_lower_bound: bool = False
    """Whether the trial ran out of memory at this peak: it needs more."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The most memory of one kind that a trial can get."""

    capacity_mb: float | None
    """Total memory of the largest device, or the limit per trial; None where it is not known."""
    what: str = "memory"
    """Kind of memory, as in messages: `GPU memory`."""
    declared_mb: float | None = None
    """Memory per trial that the task declares; None where it declares none."""


@dataclass(frozen=True, slots=True)
class TrialMemoryEstimate:
    """Memory to reserve for a configuration."""

    mb: float | None
    """Memory in MB; None for a whole device of unknown size."""
    reason: str
    """Origin of the number, for people."""
    exclusive: bool = False
    """Whether the trial may need a device to itself."""


class MemoryEstimator:
    """Estimates memory of one kind for the configurations of one task; refits as trials end."""

    def __init__(self, space: Space, limit: MemoryLimit) -> None:
        self._space = space
        self._limit = limit
        self._model: PeakModel | None = None
        self._fitted = (0, 0)

    def estimate(
        self,
        config: Config,
        observations: Sequence[PeakObservation],
        usable_mb: float | None = None,
    ) -> TrialMemoryEstimate:
        """Return what to reserve for a configuration; at most a whole device.

        Args:
            config: Configuration to be run.
            observations: Peaks of earlier trials.
            usable_mb: Memory of the largest device that other programs leave now; its total by
                default. A trial that cannot fit into it (by the rule for refusals) gets an estimate
                above it, and so waits for more.
        """
        limit = self._limit
        if limit.declared_mb is not None:
            return TrialMemoryEstimate(limit.declared_mb, "as the task declares")
        usable_mb = limit.capacity_mb if usable_mb is None else usable_mb
        if not observations:
            reason = "no trial was measured yet: a whole device"
            return TrialMemoryEstimate(usable_mb, reason, exclusive=True)
        based_on = _describe_basis(observations)
        mb = MARGIN * self._fit(observations).quantile(config, RESERVE_PROBABILITY)
        if usable_mb is None or mb < usable_mb:
            return TrialMemoryEstimate(mb, f"{RESERVE_PROBABILITY:.0%} sure, {based_on}")
        least_mb = self._fit(observations).quantile(config, REFUSE_PROBABILITY)
        least_mb = min(least_mb, limit.capacity_mb or math.inf)
        if least_mb > usable_mb:
            reason = f"needs more than other programs leave, {based_on}"
            return TrialMemoryEstimate(least_mb, reason)
        reason = f"may need a whole device, {based_on}"
        return TrialMemoryEstimate(usable_mb, reason, exclusive=True)

    def explain_refusal(
        self, config: Config, observations: Sequence[PeakObservation]
    ) -> str | None:
        """Return why a configuration cannot fit in memory; None where it may fit."""
        capacity_mb = self._limit.capacity_mb
        if capacity_mb is None or not any(
            seen.peak_mb > capacity_mb * NEGLIGIBLE_SHARE for seen in observations
        ):
            return None
        least_mb = self._fit(observations).quantile(config, REFUSE_PROBABILITY)
        if least_mb <= capacity_mb:
            return None
        return (
            f"needs at least {least_mb:.0f} MB of {self._limit.what}, of which there are"
            f" {capacity_mb:.0f} MB ({1 - REFUSE_PROBABILITY:.0%} sure,"
            f" {_describe_basis(observations)})"
        )

    def _fit(self, observations: Sequence[PeakObservation]) -> PeakModel:
        """Return a model fitted to the observations, or to nearly all of them."""
        bounds = sum(seen.is_lower_bound for seen in observations)
        fitted, fitted_bounds = self._fitted
        is_outdated = abs(len(observations) - fitted) > REFIT_SHARE * fitted
        if self._model is None or is_outdated or bounds != fitted_bounds:
            from localhpo.resources.peaks import PeakModel

            self._model = PeakModel(
                self._space,
                [seen.config for seen in observations],
                [seen.peak_mb for seen in observations],
                [seen.is_lower_bound for seen in observations],
            )
            self._fitted = len(observations), bounds
        return self._model


def read_observations(trials: Iterable[Trial], kind: MemoryKind) -> list[PeakObservation]:
    """Return the measured peaks of trials, by trial number.

    A trial that failed before it reported anything is left out: it may not have begun to train.
    """
    seen = (_read_observation(trial, kind) for trial in sorted(trials, key=lambda t: t.number))
    return [one for one in seen if one is not None]


def find_exhausted_memory(failure: Failure | None) -> MemoryKind | None:
    """Return which memory a trial ran out of; None where it did not."""
    return None if failure is None else _OUT_OF_MEMORY.get(failure.cause)


def must_rerun_exclusively(config: Config, trials: Iterable[Trial]) -> bool:
    """Return whether a configuration ran out of memory beside other trials, and runs again."""
    return any(
        trial.state is State.INTERRUPTED
        and find_exhausted_memory(trial.failure) is not None
        and trial.config == config
        for trial in trials
    )


def _read_observation(trial: Trial, kind: MemoryKind) -> PeakObservation | None:
    usage = trial.usage
    peak_mb = usage.peak_memory_mb if kind == "host" else usage.peak_gpu_memory_mb
    if peak_mb is None or not math.isfinite(peak_mb) or peak_mb <= 0:
        return None
    exhausted = find_exhausted_memory(trial.failure)
    if exhausted is not None:
        is_this_kind = exhausted == kind
        return PeakObservation(trial.config, peak_mb, is_lower_bound=True) if is_this_kind else None
    trained = trial.state in (State.COMPLETE, State.PRUNED) or bool(trial.measurements)
    ended = trial.state in (State.COMPLETE, State.PRUNED, State.FAILED)
    return PeakObservation(trial.config, peak_mb) if trained and ended else None


def _describe_basis(observations: Sequence[PeakObservation]) -> str:
    count = len(observations)
    return f"from {count} measured {'trial' if count == 1 else 'trials'}"
