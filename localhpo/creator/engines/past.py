"""History -> Optuna study: what an engine knows before it is asked.

The study lives in memory and is made anew for each proposal, so a proposal depends on the
history alone; it costs a quarter of a millisecond per trial of ten parameters. Trials of any
origin enter as added ones: complete ones with their score, pruned ones with their steps,
failed ones without any value, and those whose end is still to come as running. Refused
configurations (infeasible) say nothing about the objective and stay out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from localhpo.creator.engines.state import checked
from localhpo.trial import State, Trial, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from localhpo.creator.protocol import History
    from localhpo.space import Space


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back Optuna's log lines and notices of experimental features for a moment.

    Its logger and the filters are as they were afterwards: they belong to the user's process.
    """
    from optuna.exceptions import ExperimentalWarning

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)


def study(history: History, sampler: BaseSampler) -> Study:
    """Return an Optuna study in memory that holds the history."""
    import optuna

    from localhpo.space.optuna import to_distributions

    past = optuna.create_study(sampler=sampler, direction=history.task.direction)
    distributions = to_distributions(history.task.space)
    for trial in history.trials:
        if trial.state is not State.INFEASIBLE:
            past.add_trial(_frozen(trial, history, distributions))
    return past


def _frozen(
    trial: Trial, history: History, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    states = {
        State.COMPLETE: TrialState.COMPLETE,
        State.PRUNED: TrialState.PRUNED,
        State.FAILED: TrialState.FAIL,
    }
    space = history.task.space
    return create_trial(
        state=states.get(trial.state, TrialState.RUNNING),
        value=trial.score if trial.state is State.COMPLETE else None,
        params=_params(space, trial),
        distributions={name: distributions[name] for name in trial.config},
        intermediate_values=_steps(trial, history.task.metric),
        system_attrs=checked(trial.proposal.engine_state, trial.number),
    )


def _params(space: Space, trial: Trial) -> dict[str, Any]:
    from localhpo.space.optuna import to_internal

    return to_internal(space, trial.config)


def _steps(trial: Trial, metric: str) -> dict[int, float]:
    if trial.state is not State.PRUNED:
        return {}
    reported = values_of(trial.measurements, metric)
    return {step: value for step, value in reported if math.isfinite(value)}
