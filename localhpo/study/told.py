"""What a user says of a trial that was run by hand, as the outcome of a run."""

from __future__ import annotations

import math

from localhpo.errors import InputError
from localhpo.executor.protocol import Outcome
from localhpo.space.values import as_int, shown
from localhpo.trial import Cause, Failure, State, Trial, Usage


def outcome(
    metric: str,
    score: float | None,
    failure: str | None,
    pruned: bool,
    *,
    wall_s: float = 0.0,
) -> Outcome:
    """Return how the trial ended.

    Raises:
        InputError: neither score nor failure was given, or both, or the score is no number.
    """
    usage = Usage(wall_s=wall_s)
    if failure is not None and score is None:
        return Outcome(State.FAILED, None, Failure(Cause.TOLD, failure), usage, summary="")
    if score is None or failure is not None:
        raise InputError(
            f"either a score or a failure must be told; got score={score!r}, failure={failure!r}"
        )
    try:
        score = float(score)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the score must be a number; got {score!r}") from error
    if not math.isfinite(score):
        told = Failure(Cause.NOT_FINITE, f"{metric} was {score}")
        return Outcome(State.FAILED, None, told, usage, summary="")
    return Outcome(State.PRUNED if pruned else State.COMPLETE, score, None, usage, summary="")


def number_of(trial: object) -> int:
    """Return the number of a trial, which may be given by it.

    Raises:
        InputError: it is neither a trial nor a number.
    """
    number = as_int(trial.number if isinstance(trial, Trial) else trial)
    if number is None:
        raise InputError(f"a trial must be given as itself or by its number; got {shown(trial)}")
    return number
