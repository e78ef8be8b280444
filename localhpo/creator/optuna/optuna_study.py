"""Converts a history to an Optuna study, from which an engine samples.

The study lives in RAM and is made anew for each proposal, so a proposal depends on the history
alone; it costs a quarter of a millisecond per trial of ten parameters. Trials of any origin are
added: complete ones with their values and constraint values, pruned ones with their steps, failed
ones without any value, and those that have not ended as running. Refused configurations
(infeasible) say nothing about the objectives and stay out.

A complete trial of which a constraint is unknown is added as a failed one: Optuna refuses NaN, and
any number in its place would be made up.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from localhpo.creator.optuna.state import check_state
from localhpo.trial import State, Trial, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from localhpo.creator.protocol import History
    from localhpo.space import Space

_CONSTRAINTS = "constraints"
"""System attribute in which Optuna keeps constraint values: a list, <= 0 where they hold."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back Optuna's log lines and notices of experimental features for a moment.

    Its logger and the filters are restored afterwards: they belong to the user's process.
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


def build_study(
    history: History, sampler: BaseSampler, foreign_attrs: Mapping[str, Any] | None = None
) -> Study:
    """Return an Optuna study in RAM that holds the history.

    Args:
        history: of the study.
        sampler: samples its next trials.
        foreign_attrs: system attributes for complete trials that lack them.
    """
    import optuna

    from localhpo.space.optuna import to_distributions

    directions = [objective.direction for objective in history.task.objectives]
    study = optuna.create_study(sampler=sampler, directions=directions)
    distributions = to_distributions(history.task.space)
    for trial in history.trials:
        if trial.state is not State.INFEASIBLE:
            study.add_trial(_to_frozen_trial(trial, history, distributions, foreign_attrs or {}))
    return study


def _to_frozen_trial(
    trial: Trial,
    history: History,
    distributions: dict[str, BaseDistribution],
    foreign_attrs: Mapping[str, Any],
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    states = {
        State.COMPLETE: TrialState.COMPLETE,
        State.PRUNED: TrialState.PRUNED,
        State.FAILED: TrialState.FAIL,
    }
    task = history.task
    state = states.get(trial.state, TrialState.RUNNING)
    constraints_known = len(trial.violations) == len(task.constraints) and not any(
        map(math.isnan, trial.violations)
    )
    if state is TrialState.COMPLETE and not constraints_known:
        state = TrialState.FAIL
    attrs = check_state(trial.proposal.engine_state, trial.number)
    if state is TrialState.COMPLETE:
        attrs = {**foreign_attrs, **attrs}
    if task.constraints and constraints_known:
        attrs[_CONSTRAINTS] = list(trial.violations)
    return create_trial(
        state=state,
        values=list(trial.values) if state is TrialState.COMPLETE else None,
        params=_params(task.space, trial),
        distributions={name: distributions[name] for name in trial.config},
        intermediate_values=_steps(trial, task.metric),
        system_attrs=attrs,
    )


def _params(space: Space, trial: Trial) -> dict[str, Any]:
    from localhpo.space.optuna import to_internal

    return to_internal(space, trial.config)


def _steps(trial: Trial, metric: str) -> dict[int, float]:
    if trial.state is not State.PRUNED:
        return {}
    reported = values_of(trial.measurements, metric)
    return {step: value for step, value in reported if math.isfinite(value)}
