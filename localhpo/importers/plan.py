"""Which trials of a file go into a study, and which do not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localhpo.errors import ConfigurationError, InputError
from localhpo.importers.inference import InferredSpace, infer_space
from localhpo.importers.source import SkippedRow, SourceTrial, TrialSource
from localhpo.objective import MEASURED, Constraint, Direction, Objective
from localhpo.space import Categorical, Ordinal, Parameter, Space, Value
from localhpo.space.values import identity_of, show_value
from localhpo.task import Task
from localhpo.trial import Config, Trial


@dataclass(frozen=True, slots=True)
class AcceptedTrial:
    """A trial of the file, in the terms of the study."""

    source: SourceTrial
    config: Config
    """Canonical."""
    metrics: Mapping[str, float]
    """Values of the objectives and constrained metrics, by the names of the study; empty where
    the trial has none."""


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import will do."""

    space: Space
    fixed: Mapping[str, Value]
    """Hyperparameters with one value in all accepted trials."""
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    accepted: tuple[AcceptedTrial, ...]
    skipped: tuple[SkippedRow, ...]
    known: int
    """Number of trials whose configuration the study has already."""
    notes: tuple[str, ...]


def plan_import(
    source: TrialSource,
    task: Task | None = None,
    trials: Sequence[Trial] = (),
    *,
    directions: Sequence[Direction] = (),
) -> ImportPlan:
    """Return which trials go into a study.

    A configuration is accepted once: its first complete trial, else its first. Trials outside the
    space, or with another value of a fixed hyperparameter, are skipped with the reason.

    Args:
        source: what was read.
        task: gives space, fixed values, objectives and constraints; None: as the file states
            them, or as they are inferred from its values.
        trials: what the study has already.
        directions: of the objectives, where neither task nor file says.

    Raises:
        SpaceError: there is nothing to tune.
        InputError: the objectives of file and task differ in number, or a direction is unknown.
    """
    if task is None:
        inferred = _stated_or_inferred(source)
        space, fixed, notes = inferred.space, inferred.fixed, inferred.notes
        objectives, constraints = _objectives(source, directions), source.constraints
    else:
        space, fixed = task.space, task.fixed
        objectives, constraints = task.objectives, task.constraints
        notes = (*source.notes, *_unused({*space.names, *fixed}, source.trials))
    names = _match_metrics(source, objectives, constraints)
    notes += _differing_directions(source, objectives, names)
    if source.constraints and not constraints:
        notes += ("the file has constraints and the task has none: they are ignored",)
    fitting: list[AcceptedTrial] = []
    skipped = list(source.skipped)
    for trial in source.trials:
        try:
            _check_fixed(fixed, trial.params)
            config = space.canonical(_active_params(space, trial.params))
            metrics = _study_metrics(trial, source, constraints, names)
        except ConfigurationError as error:
            skipped.append(SkippedRow(trial.where, str(error)))
        else:
            fitting.append(AcceptedTrial(trial, config, metrics))
    have = {space.key(trial.config) for trial in trials}
    new = [one for one in fitting if space.key(one.config) not in have]
    accepted, repeated = _unique(space, new)
    return ImportPlan(
        space=space,
        fixed=fixed,
        objectives=objectives,
        constraints=constraints,
        accepted=tuple(accepted),
        skipped=(*skipped, *repeated),
        known=len(fitting) - len(new),
        notes=notes,
    )


def _stated_or_inferred(source: TrialSource) -> InferredSpace:
    if source.space is not None:
        return InferredSpace(source.space, source.fixed, source.notes)
    inferred = infer_space([trial.params for trial in source.trials])
    return replace(inferred, notes=(*source.notes, *inferred.notes))


def _objectives(source: TrialSource, directions: Sequence[Direction]) -> tuple[Objective, ...]:
    for name in source.metrics:
        if source.metrics.count(name) > 1:
            raise InputError(f"each objective must have a name of its own; got {name} twice")
    known = tuple(directions) or source.directions
    if len(known) != len(source.metrics):
        names = ", ".join(source.metrics)
        raise InputError(
            f"each of the {len(source.metrics)} objectives ({names}) needs a direction; got "
            f"{', '.join(known)}"
            if known
            else f"the file does not say whether {source.metrics[0]} is minimized or maximized",
            hint="--direction minimize or --direction maximize"
            if len(source.metrics) == 1
            else " ".join(f"--metric {name}:minimize (or maximize)" for name in source.metrics),
        )
    return tuple(map(Objective, source.metrics, known))


def _match_metrics(
    source: TrialSource, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> dict[str, str]:
    """Return the name in the file of each metric of the study.

    By name where the objectives have the same names, else by order; the same for constraints that
    the file states.
    """
    wanted = [objective.name for objective in objectives]
    if len(wanted) != len(source.metrics):
        raise InputError(
            f"the task has {len(wanted)} objectives ({', '.join(wanted)}), "
            f"{source.kind} has {len(source.metrics)} ({', '.join(source.metrics)})",
            hint="name one metric of the file for each objective, with --metric",
        )
    by_name = set(wanted) == set(source.metrics)
    names = dict(zip(wanted, wanted if by_name else source.metrics, strict=True))
    stated = [constraint.name for constraint in source.constraints]
    limited = [constraint.name for constraint in constraints]
    if stated and not set(limited) <= set(stated):
        in_order = zip(limited, stated, strict=True) if len(limited) == len(stated) else ()
        return names | dict(in_order)
    return names | {name: name for name in limited}


def _differing_directions(
    source: TrialSource, objectives: Sequence[Objective], names: Mapping[str, str]
) -> tuple[str, ...]:
    directions = dict(zip(source.metrics, source.directions, strict=False))
    return tuple(
        f"{names[one.name]} is to {directions[names[one.name]]} in the file, and {one.name} to "
        f"{one.direction} in the study"
        for one in objectives
        if directions.get(names[one.name], one.direction) != one.direction
    )


def _study_metrics(
    trial: SourceTrial,
    source: TrialSource,
    constraints: Sequence[Constraint],
    names: Mapping[str, str],
) -> dict[str, float]:
    """Return the values of a trial by the names of the study.

    Raises:
        ConfigurationError: a complete trial has no value of a constrained metric.
    """
    if not trial.metrics:
        return {}
    stated = {constraint.name for constraint in source.constraints}
    metrics = {
        name: trial.metrics[given] for name, given in names.items() if given in trial.metrics
    }
    for constraint in constraints:
        given = names.get(constraint.name)
        if given in stated and given in trial.metrics:
            # Optuna keeps how far a bound is exceeded, not the metric itself.
            metrics[constraint.name] = _value_with_violation(constraint, trial.metrics[given])
        elif (
            constraint.name not in metrics
            and constraint.name not in MEASURED
            and trial.ending == "complete"
        ):
            raise ConfigurationError(f"it has no value of {constraint.name}, which is constrained")
    return metrics


def _value_with_violation(constraint: Constraint, violation: float) -> float:
    """Return a value of the metric that exceeds the bound by the given amount."""
    if constraint.max is not None:
        return constraint.max + violation
    return (constraint.min or 0.0) - violation


def _check_fixed(fixed: Mapping[str, Value], params: Mapping[str, Any]) -> None:
    """Refuse a trial that had another value; one that does not tell is accepted.

    Raises:
        ConfigurationError: names the hyperparameter.
    """
    for name, value in fixed.items():
        given = params.get(name, value)
        if identity_of(given) != identity_of(value) and str(given) != str(value):
            raise ConfigurationError(
                f"{name} is fixed at {show_value(value)}, got {show_value(given)}"
            )


def _unique(
    space: Space, trials: Iterable[AcceptedTrial]
) -> tuple[list[AcceptedTrial], list[SkippedRow]]:
    chosen: dict[str, AcceptedTrial] = {}
    repeated: list[tuple[AcceptedTrial, str]] = []
    for one in trials:
        key = space.key(one.config)
        if key in chosen and _has_values(one) and not _has_values(chosen[key]):
            repeated.append((chosen[key], key))
            chosen[key] = one
        elif key in chosen:
            repeated.append((one, key))
        else:
            chosen[key] = one
    skipped = [
        SkippedRow(one.source.where, f"same configuration as {chosen[key].source.where}")
        for one, key in repeated
    ]
    return list(chosen.values()), skipped


def _has_values(one: AcceptedTrial) -> bool:
    finite = all(map(math.isfinite, one.metrics.values()))
    return one.source.ending == "complete" and bool(one.metrics) and finite


def _active_params(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the active parameters; tables have those of the others too."""
    config: dict[str, Any] = {}
    for parameter in space:  # parents come before those that depend on them
        if parameter.name in params and space.is_active(parameter.name, config):
            config[parameter.name] = _choice(parameter, params[parameter.name])
    return config


def _choice(parameter: Parameter, value: Any) -> Any:
    """Return a choice by its spelling, where a table has another type."""
    if not isinstance(parameter, Categorical | Ordinal) or value in parameter.values:
        return value
    same = [choice for choice in parameter.values if str(choice) == str(value)]
    return same[0] if same else value


def _unused(known: Collection[str], trials: Iterable[SourceTrial]) -> tuple[str, ...]:
    names = dict.fromkeys(name for one in trials for name in one.params if name not in known)
    return (f"not in the space, so ignored: {', '.join(names)}",) if names else ()
