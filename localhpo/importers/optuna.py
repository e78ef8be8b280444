"""Reads a study of Optuna: from an SQLite file, or from a journal.

The SQLite file is copied by SQLite itself before Optuna opens the copy. So a study that is running
is read in one consistent state, and the user's file cannot change: Optuna creates its tables in
whatever file it opens.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localhpo.errors import InputError, SpaceError
from localhpo.importers.inference import nothing_varies, with_conditions
from localhpo.importers.source import Ending, SkippedRow, SourceTrial, TrialSource
from localhpo.objective import Constraint, Direction
from localhpo.space import Space, Value
from localhpo.space.optuna import from_distributions, name_of_none

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SQLITE = b"SQLite format 3\0"
"""First bytes of an SQLite file."""

LOCK_WAIT_S = 5.0
"""Seconds to wait for another process that writes to the file."""

_TABLES = {"studies", "trials", "trial_params", "version_info"}
"""Tables that every version of Optuna has."""

_ENDINGS: dict[str, Ending] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}

_VALUE = "value"
"""Name of an objective without a name, as in Optuna's data frames: `value`, `value_0`."""

_CONSTRAINTS = "constraints"
"""System attribute with constraint values, <= 0 where they hold: a list, or with Optuna 5 one
attribute `constraints:NAME` for each."""


def read_sqlite(path: Path, study: str | None, metrics: Sequence[str] = ()) -> TrialSource:
    """Return the trials of a study in an SQLite file.

    Args:
        path: the file.
        study: its name; None for the only one.
        metrics: names for its objectives; empty for those that it has.

    Raises:
        InputError: it holds no such study, or cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        _copy(path, copy)
        with _named_errors(path):
            from optuna.storages import RDBStorage

            storage = RDBStorage(f"sqlite:///{copy}")
        try:
            return _read_study(storage, path, study, metrics)
        finally:
            storage.remove_session()
            storage.engine.dispose()


def read_journal(path: Path, study: str | None, metrics: Sequence[str] = ()) -> TrialSource:
    """Return the trials of a study in a journal. Arguments and errors as `read_sqlite`."""
    with _named_errors(path):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(path)))
    return _read_study(storage, path, study, metrics)


def _copy(path: Path, copy: Path) -> None:
    """Copy an SQLite file with Optuna's tables in one consistent state."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            names = source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not {name for (name,) in names} >= _TABLES:
                raise InputError(f"{path} is an SQLite file, but not a storage of Optuna")
            source.backup(target)
    except sqlite3.Error as error:
        raise InputError(
            f"{path} cannot be read: {error}",
            hint="wait until no process writes to it, or import a copy",
        ) from error


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn errors of Optuna into one that names the file."""
    from optuna.exceptions import OptunaError

    try:
        yield
    except (OptunaError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path} cannot be read by the installed Optuna: {error}",
            hint="`optuna storage upgrade` brings an older SQLite file up to it",
        ) from error


def _read_study(
    storage: BaseStorage, path: Path, name: str | None, metrics: Sequence[str]
) -> TrialSource:
    import optuna

    with _named_errors(path):
        names = [one.study_name for one in optuna.get_all_study_summaries(storage)]
        chosen = _choose_study(names, name, path)
        study = optuna.load_study(study_name=chosen, storage=storage)
        trials = study.get_trials(deepcopy=False)
    space, fixed, notes = _space(trials)
    objectives = _objective_names(study, chosen, metrics)
    directions: dict[str, Direction] = {
        name: "maximize" if direction.name == "MAXIMIZE" else "minimize"
        for name, direction in zip(objectives, study.directions, strict=True)
    }
    wanted = tuple(metrics or objectives)
    ended = [trial for trial in trials if trial.state.name in _ENDINGS]
    constraints = dict.fromkeys(name for trial in ended for name in _constraint_values(trial))
    return TrialSource(
        kind=f"Optuna study {chosen!r}",
        name=chosen,
        metrics=wanted,
        directions=tuple(directions[name] for name in wanted),
        constraints=tuple(Constraint(name, max=0.0) for name in constraints),
        trials=tuple(_source_trial(trial, objectives) for trial in ended),
        skipped=tuple(
            SkippedRow(f"trial {trial.number}", f"it has not ended ({trial.state.name.lower()})")
            for trial in trials
            if trial.state.name not in _ENDINGS
        ),
        space=space,
        fixed=fixed,
        notes=tuple(notes),
    )


def _objective_names(study: Study, name: str, metrics: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each stored value, in order: that of the study, else `value`, `value_0`.

    Given names that the study does not have replace them.

    Raises:
        InputError: there are not as many such names as objectives.
    """
    count = len(study.directions)
    unnamed = [_VALUE] if count == 1 else [f"{_VALUE}_{index}" for index in range(count)]
    stored = study.metric_names or unnamed
    if set(metrics) <= set(stored):
        return tuple(stored)
    if len(metrics) != count:
        raise InputError(
            f"each objective must have one name: study {name!r} has {count}, "
            f"got {', '.join(metrics)}",
            hint="give --metric once for each objective, in order, or choose among "
            f"{', '.join(stored)}",
        )
    return tuple(metrics)


def _choose_study(names: Sequence[str], name: str | None, path: Path) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name is not None and name in names:
        return name
    held = ", ".join(map(repr, names)) or "none"
    wanted = "which study?" if name is None else f"there is no study {name!r}:"
    raise InputError(f"{wanted} {path} holds {held}", hint="name one with --optuna-study NAME")


def _space(trials: Sequence[FrozenTrial]) -> tuple[Space, dict[str, Value], list[str]]:
    """Return the space that contains the distributions of all trials, fixed values, and notes.

    Raises:
        SpaceError: no trial has a hyperparameter that varies, or one of them has two kinds.
    """
    found: dict[str, BaseDistribution] = {}
    notes: dict[str, None] = {}
    for trial in trials:
        for name, one in trial.distributions.items():
            known = found.setdefault(name, one)
            if known != one:
                found[name] = _union(name, known, one)
                notes[f"{name}: its range changed between trials; the union is used"] = None
    if not found:
        raise SpaceError("none of the trials has a hyperparameter")
    rows = [_params(trial) for trial in trials if trial.params]
    complete = [_params(trial) for trial in trials if trial.state.name == "COMPLETE"]
    fixed = {
        name: next(row[name] for row in rows if name in row)
        for name, one in found.items()
        if one.single() and all(name in row for row in complete)  # else it depends on another one
    }
    tuned = {name: one for name, one in found.items() if name not in fixed}
    if not tuned:
        raise nothing_varies()
    space = from_distributions(tuned)
    conditional = Space(with_conditions(list(space), rows))
    if conditional != space:
        notes["conditions are inferred from the trials: Optuna does not store them"] = None
    return conditional, fixed, list(notes)


def _union(name: str, a: BaseDistribution, b: BaseDistribution) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    for kind in (FloatDistribution, IntDistribution):
        if isinstance(a, kind) and isinstance(b, kind):
            low, high = min(a.low, b.low), max(a.high, b.high)
            return kind(low, high, log=a.log and b.log)
    raise SpaceError(
        f"{name} has distributions of two kinds: {a} and {b}", hint="give the space with --task"
    )


def _params(trial: FrozenTrial) -> dict[str, Any]:
    return {name: name_of_none(value) for name, value in trial.params.items()}


def _constraint_values(trial: FrozenTrial) -> dict[str, float]:
    """Return how far the trial exceeds each constraint, by name; empty where it has none."""
    attrs = trial.system_attrs
    values = {f"constraint_{i}": one for i, one in enumerate(attrs.get(_CONSTRAINTS) or ())}
    prefix = f"{_CONSTRAINTS}:"
    named = {k.removeprefix(prefix): v for k, v in attrs.items() if k.startswith(prefix)}
    return {name: float(value) for name, value in {**values, **named}.items()}


def _source_trial(trial: FrozenTrial, objectives: Sequence[str]) -> SourceTrial:
    steps = tuple(sorted(trial.intermediate_values.items()))
    ending = _ENDINGS[trial.state.name]
    values: Sequence[float] = ()
    if ending == "complete":
        values = trial.values or ()
    elif ending == "pruned" and steps:
        values = (steps[-1][1],)
    metrics = dict(zip(objectives, values, strict=False))
    if metrics:
        metrics |= _constraint_values(trial)
    return SourceTrial(f"trial {trial.number}", _params(trial), ending, metrics, steps)
