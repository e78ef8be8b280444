"""How much memory a trial will need, said before it runs: from measured peaks.

    estimator = Estimator(space, Wall(capacity_mb=8000, what="device memory"))
    estimate = estimator.estimate(config, evidence)
    estimate.mb         # reserve so much
    estimate.reason     # "99 % sure, from 12 trials"
    estimator.refusal(config, evidence)     # why it cannot fit, or None

Two numbers, because two mistakes cost differently. What is *reserved* is an upper quantile:
too little of it is an out-of-memory failure beside other trials. What is *refused* is by a
lower one: a configuration that might fit is run, alone, and says itself whether it does.

While nothing is known, the estimate is a whole device. What the task declares stands for the
estimate; that a configuration cannot fit is learned all the same.

Evidence is what trials were measured to use, of this study and of earlier ones of the same
task. A trial that ran out of memory tells that its peak is at least what it had reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from localhpo.trial import Cause, Config, State, Trial

if TYPE_CHECKING:
    from localhpo.scheduler.peaks import PeakModel
    from localhpo.space import Space

Kind = Literal["host", "device"]

UPPER = 0.99
"""Probability that a trial stays below what is reserved for it."""
LOWER = 0.2
"""Probability that a refused configuration would have fitted, at most."""
MARGIN = 1.05
"""On what is reserved: peaks are polled, and allocators keep some in reserve."""
NEAR_WALL = 1 / 16
"""Of the capacity: while every peak is below, no trial is refused, and nothing is computed."""
REFIT_SHARE = 0.1
"""The model is fitted anew when the evidence has grown by this share."""

_OUT_OF_MEMORY: dict[Cause, Kind] = {
    Cause.OUT_OF_MEMORY_HOST: "host",
    Cause.OUT_OF_MEMORY_DEVICE: "device",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What one trial was measured to need."""

    config: Config
    peak_mb: float
    at_least: bool = False
    """It ran out of memory there: the true peak is above."""


@dataclass(frozen=True, slots=True)
class Wall:
    """What no trial ever gets more of."""

    capacity_mb: float | None
    """Of the largest device in all, or the limit per trial; None where it is not known."""
    what: str = "memory"
    """It, in words: `device memory`."""
    declared_mb: float | None = None
    """What the task says that each trial needs."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a configuration needs, as far as it is known."""

    mb: float | None
    """To be reserved; None for a whole device of unknown size."""
    reason: str
    """Where the number comes from, for a person."""
    whole: bool = False
    """Whether it may need a device to itself."""


class Estimator:
    """Estimates the memory of one task's configurations; fits again as evidence comes in."""

    def __init__(self, space: Space, wall: Wall) -> None:
        self._space = space
        self._wall = wall
        self._model: PeakModel | None = None
        self._fitted = (0, 0)

    def estimate(
        self, config: Config, evidence: Sequence[Observation], usable_mb: float | None = None
    ) -> Estimate:
        """Return what to reserve for a configuration; at most the whole device.

        Args:
            config: To be run.
            evidence: What trials needed so far.
            usable_mb: What others leave of the largest device now; all of it by default. What
                cannot fit there, as a refusal would say it, is to wait for more.
        """
        wall = self._wall
        if wall.declared_mb is not None:
            return Estimate(wall.declared_mb, "as the task declares")
        usable_mb = wall.capacity_mb if usable_mb is None else usable_mb
        if not evidence:
            return Estimate(usable_mb, "nothing was measured yet: a whole device", whole=True)
        mb = MARGIN * self._fit(evidence).quantile(config, UPPER)
        if usable_mb is None or mb < usable_mb:
            return Estimate(mb, f"{UPPER:.0%} sure, {_learned(evidence)}")
        least_mb = min(self._fit(evidence).quantile(config, LOWER), wall.capacity_mb or math.inf)
        if least_mb > usable_mb:
            return Estimate(least_mb, f"needs more than others leave, {_learned(evidence)}")
        return Estimate(usable_mb, f"may need a whole device, {_learned(evidence)}", whole=True)

    def refusal(self, config: Config, evidence: Sequence[Observation]) -> str | None:
        """Return why a configuration cannot fit, with the number; None where it may."""
        capacity_mb = self._wall.capacity_mb
        if capacity_mb is None or not any(
            seen.peak_mb > capacity_mb * NEAR_WALL for seen in evidence
        ):
            return None
        least_mb = self._fit(evidence).quantile(config, LOWER)
        if least_mb <= capacity_mb:
            return None
        return (
            f"needs at least {least_mb:.0f} MB of {self._wall.what} ({1 - LOWER:.0%} sure, "
            f"{_learned(evidence)}), and {capacity_mb:.0f} MB is all there is"
        )

    def _fit(self, evidence: Sequence[Observation]) -> PeakModel:
        """Return a model of the evidence, or of nearly all of it."""
        censored = sum(seen.at_least for seen in evidence)
        known, known_censored = self._fitted
        outgrown = abs(len(evidence) - known) > REFIT_SHARE * known or censored != known_censored
        if self._model is None or outgrown:
            from localhpo.scheduler.peaks import PeakModel

            self._model = PeakModel(
                self._space,
                [seen.config for seen in evidence],
                [seen.peak_mb for seen in evidence],
                [seen.at_least for seen in evidence],
            )
            self._fitted = len(evidence), censored
        return self._model


def observations(trials: Iterable[Trial], kind: Kind) -> list[Observation]:
    """Return what trials tell about memory, in the order of their numbers.

    One that failed before it reported anything may not have begun to train, and says nothing.
    """
    seen = (_observation(trial, kind) for trial in sorted(trials, key=lambda t: t.number))
    return [one for one in seen if one is not None]


def runs_out(cause: Cause) -> Kind | None:
    """Return which memory a failure of that cause ran out of; None for any other."""
    return _OUT_OF_MEMORY.get(cause)


def ran_out(trial: Trial) -> Kind | None:
    """Return which memory a trial ran out of; None where it did not."""
    return None if trial.failure is None else runs_out(trial.failure.cause)


def again_alone(config: Config, trials: Iterable[Trial]) -> bool:
    """Return whether a configuration waits to run again, having run out of memory beside others."""
    return any(
        trial.state is State.INTERRUPTED and ran_out(trial) is not None and trial.config == config
        for trial in trials
    )


def _observation(trial: Trial, kind: Kind) -> Observation | None:
    usage = trial.usage
    peak_mb = usage.peak_memory_mb if kind == "host" else usage.peak_gpu_memory_mb
    if peak_mb is None or not math.isfinite(peak_mb) or peak_mb <= 0:
        return None
    if ran_out(trial) is not None:
        known = ran_out(trial) == kind
        return Observation(trial.config, peak_mb, at_least=True) if known else None
    trained = trial.state in (State.COMPLETE, State.PRUNED) or bool(trial.measurements)
    over = trial.state in (State.COMPLETE, State.PRUNED, State.FAILED)
    return Observation(trial.config, peak_mb) if trained and over else None


def _learned(evidence: Sequence[Observation]) -> str:
    count = len(evidence)
    return f"from {count} measured {'trial' if count == 1 else 'trials'}"
