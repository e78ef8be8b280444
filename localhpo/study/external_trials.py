"""Trials that were run elsewhere or by hand: how they ended, and many of them recorded at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from localhpo.errors import InputError, did_you_mean
from localhpo.executor.protocol import Outcome
from localhpo.objective import Constraint, Objective, evaluate
from localhpo.scheduler.trial_table import TrialTable
from localhpo.space.values import as_int, show_value, unbox_numpy
from localhpo.store import Store
from localhpo.study.session import Session
from localhpo.task import Task
from localhpo.trial import (
    EXTERNAL,
    Cause,
    Config,
    Failure,
    Measurement,
    Proposal,
    State,
    Trial,
    Usage,
)

Values = float | Sequence[float] | Mapping[str, float]
"""The value of the one objective, one for each objective in order, or values by name: those of
objectives and, beside them, of metrics that are constrained."""


def make_outcome(
    task: Task,
    values: Values | None,
    failure: str | None,
    pruned: bool,
    *,
    measurements: Sequence[Measurement] = (),
    wall_s: float = 0.0,
) -> Outcome:
    """Return how a trial ended.

    Args:
        task: its objectives and constraints.
        values: what was measured.
        failure: why it failed, in one sentence; in place of values.
        pruned: whether it was stopped early.
        measurements: what it reported on the way; constraints are read from them too.
        wall_s: how long it took.

    Raises:
        InputError: neither values nor failure was given, or both, or a value is missing, unknown
            or no number.
    """
    usage = Usage(wall_s=wall_s)
    if failure is not None and values is None:
        return Outcome(State.FAILED, (), Failure(Cause.BY_USER, failure), usage, summary="")
    if values is None or failure is not None:
        raise InputError(
            f"a trial ended with a value or with a failure; got values={show_value(values)}, "
            f"failure={failure!r}",
            hint="pass one of the two",
        )
    metrics = _by_name(task, values)
    for name, value in metrics.items():
        if not math.isfinite(value):
            failed = Failure(Cause.NOT_FINITE, f"{name} was {value}")
            return Outcome(State.FAILED, (), failed, usage, summary="")
    given = [Measurement(0, name, value, 0.0) for name, value in metrics.items()]
    found = evaluate((), task.constraints, [*measurements, *given], usage)
    if found.missing and not pruned:
        raise InputError(
            f"a constraint needs the value of its metric; {', '.join(found.missing)} was not given",
            hint=f"pass values by name: {{{', '.join(f'{n!r}: ...' for n in _names(task))}}}",
        )
    return Outcome(
        state=State.PRUNED if pruned else State.COMPLETE,
        values=tuple(metrics[objective.name] for objective in task.objectives),
        failure=None,
        usage=usage,
        summary="",
        violations=found.violations,
    )


def _names(task: Task) -> list[str]:
    goals: list[Objective | Constraint] = [*task.objectives, *task.constraints]
    return list(dict.fromkeys(goal.name for goal in goals))


def _by_name(task: Task, values: Values) -> dict[str, float]:
    """Return the values under the names of their metrics."""
    objectives = [objective.name for objective in task.objectives]
    if isinstance(values, Mapping):
        for name in values:
            if name not in _names(task):
                raise InputError(
                    f"a value must be that of an objective or constraint; got {name!r}",
                    hint=did_you_mean(str(name), _names(task))
                    or f"known: {', '.join(_names(task))}",
                )
        missing = [name for name in objectives if name not in values]
        if missing:
            raise InputError(f"each objective needs a value; {', '.join(missing)} was not given")
        return {name: _number(name, value) for name, value in values.items()}
    given = unbox_numpy(values)  # a NumPy array is a collection and no sequence
    several = isinstance(given, Collection) and not isinstance(given, str | bytes | Set)
    row = list(given) if isinstance(given, Collection) and several else [given]
    if len(row) != len(objectives):
        raise InputError(
            f"each objective needs a value, in the order {', '.join(objectives)}; "
            f"got {show_value(values)}"
        )
    return {name: _number(name, value) for name, value in zip(objectives, row, strict=True)}


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"the value of {name} must be a number; got {show_value(value)}"
        ) from error


def number_of(trial: object) -> int:
    """Return the number of a trial, which may be given by it.

    Raises:
        InputError: it is neither a trial nor a number.
    """
    number = as_int(trial.number if isinstance(trial, Trial) else trial)
    if number is None:
        raise InputError(
            f"a trial must be given as itself or by its number; got {show_value(trial)}"
        )
    return number


IMPORTED = "imported"
"""Kind of the event that records an import."""


@dataclass(frozen=True, slots=True)
class ExternalTrial:
    """A trial that was run elsewhere: its configuration is canonical, and new to the study."""

    config: Config
    outcome: Outcome
    measurements: tuple[Measurement, ...] = ()
    note: str = ""
    """Where it comes from."""


def add_trials(
    store: Store,
    key: str,
    task: Task,
    trials: Sequence[ExternalTrial],
    message: str,
    data: Mapping[str, Any],
) -> None:
    """Record trials in a study, which is created where there is none.

    Args:
        store: where the study is.
        key: `<task>/<study>`.
        task: of the study.
        trials: they do not count against its budget.
        message: of the event that records the import.
        data: of that event, as JSON.

    Raises:
        StudyLockedError: another process writes this study.
        StoreError: the store cannot be written.
    """
    session = Session(store, key, task)
    try:
        for external in trials:
            record_trial(session.trial_table, external)
        session.writer.write_event(IMPORTED, message, data=data)
    finally:
        session.close()


def record_trial(trial_table: TrialTable, external: ExternalTrial) -> Trial:
    """Record one trial in the table of a study; return it as it is recorded."""
    proposal = Proposal(external.config, origin=EXTERNAL, note=external.note)
    number = trial_table.start(trial_table.queue(proposal)).number
    if external.measurements:
        trial_table.add_measurements(number, external.measurements)
    return trial_table.end(number, external.outcome)
