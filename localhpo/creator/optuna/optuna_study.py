"""Converts a history to an Optuna study, from which an engine samples.

The study lives in RAM and is made anew for each proposal, so a proposal depends on the history
alone; it costs a quarter of a millisecond per trial of ten parameters. Trials of any origin are
added: complete ones with their values and constraint values, pruned ones with their steps, failed
ones without any value, and those that have not ended as running. Refused configurations
(infeasible) say nothing about the objectives and stay out.

A complete trial of which a constraint is unknown is added as a failed one: Optuna refuses NaN, and
any number in its place would be made up.

What an engine needs of earlier trials to go on are the `system_attrs` that Optuna gave to each
trial; they are JSON. For CMA-ES they say which generation a trial belongs to and hold the
distribution it was drawn from; without them CMA-ES never leaves its start. Optuna keeps that
distribution as a pickle in hexadecimal, and a pickle can run any code when it is read. A store may
come from somebody else, so a pickle that names anything but the classes of CMA-ES and the array
types in it is refused before Optuna reads it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import pickle
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from localhpo.errors import CreatorError
from localhpo.space.optuna import to_distributions, to_internal
from localhpo.trial import State, Trial, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from localhpo.creator.protocol import History

_CONSTRAINTS = "constraints"
"""System attribute in which Optuna keeps constraint values: a list, <= 0 where they hold."""

_OPTIMIZER = "cma:optimizer:"

_ALLOWED = frozenset(
    {
        ("cmaes._cma", "CMA"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        # numpy 2 and numpy 1 spell the same two differently
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
    }
)


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
        params=to_internal(task.space, trial.config),
        distributions={name: distributions[name] for name in trial.config},
        intermediate_values=_steps(trial, task.metric),
        system_attrs=attrs,
    )


def _steps(trial: Trial, metric: str) -> dict[int, float]:
    if trial.state is not State.PRUNED:
        return {}
    reported = values_of(trial.measurements, metric)
    return {step: value for step, value in reported if math.isfinite(value)}


class _Reader(pickle.Unpickler):
    """Reads pickles that name only the classes in `_ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def check_state(state: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the state of a trial after checking that Optuna can read it safely.

    Raises:
        CreatorError: an engine of LocalHPO did not write it.
    """
    keys = [key for key in state if key.startswith(_OPTIMIZER)]
    try:
        text = "".join(state[f"{_OPTIMIZER}{index}"] for index in range(len(keys)))
        if text:
            _Reader(io.BytesIO(bytes.fromhex(text))).load()
    except (pickle.UnpicklingError, LookupError, ValueError, EOFError, TypeError) as error:
        raise CreatorError(
            f"the state of the engine stored with trial {number} cannot be used: {error}",
            hint="the store was damaged or tampered with; start another study with --study NEW",
        ) from error
    return dict(state)
