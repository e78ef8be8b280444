"""Why a trial has no value: how it failed, or why it was refused before it ran. Pure functions."""

from __future__ import annotations

from localhpo.trial import State, Trial


def cause(trial: Trial) -> str | None:
    """Return the cause in a word or two; None for a trial that neither failed nor was refused."""
    if trial.failure is not None:
        return trial.failure.cause.value
    return trial.state.value if trial.state is State.INFEASIBLE else None


def message(trial: Trial) -> str:
    """Return the message of the failure, or the reason why the trial was refused."""
    if trial.failure is not None:
        return trial.failure.message
    return trial.summary if trial.state is State.INFEASIBLE else ""


def stderr_tail(trial: Trial) -> str:
    """Return the last lines of its standard error; empty for a trial that never ran."""
    return "" if trial.failure is None else trial.failure.stderr_tail
