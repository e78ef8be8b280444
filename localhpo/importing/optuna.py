"""Reads a study of Optuna: from an SQLite file, or from a journal.

The SQLite file is copied by SQLite itself before Optuna opens the copy, so a study that runs
meanwhile is read as it stood at one moment, and nothing in the user's file can change: Optuna
makes tables in whatever it is pointed at.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localhpo.errors import InputError, SpaceError
from localhpo.importing.inferring import nothing_varies, with_conditions
from localhpo.importing.source import Ending, Left, Row, Source
from localhpo.space import Space, Value
from localhpo.space.optuna import from_distributions, named

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SQLITE = b"SQLite format 3\0"
"""First bytes of an SQLite file."""

LOCK_WAIT_S = 5.0
"""How long to wait for another process that writes to the file."""

_TABLES = {"studies", "trials", "trial_params", "version_info"}
"""Some of those that every version of Optuna has."""

_ENDINGS: dict[str, Ending] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}

_VALUE = "value"
"""What Optuna calls a metric without a name."""


def read_sqlite(path: Path, study: str | None) -> Source:
    """Return the trials of a study in an SQLite file.

    Args:
        path: the file.
        study: its name; None for the only one.

    Raises:
        InputError: it holds no such study, or cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        _copy(path, copy)
        with _blaming(path):
            from optuna.storages import RDBStorage

            storage = RDBStorage(f"sqlite:///{copy}")
        try:
            return _read(storage, path, study)
        finally:
            storage.remove_session()
            storage.engine.dispose()


def read_journal(path: Path, study: str | None) -> Source:
    """Return the trials of a study in a journal. Arguments and errors as `read_sqlite`."""
    with _blaming(path):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(path)))
    return _read(storage, path, study)


def _copy(path: Path, copy: Path) -> None:
    """Copy an SQLite file that holds Optuna's tables, as it stands at one moment."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            names = source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not {name for (name,) in names} >= _TABLES:
                raise InputError(f"{path} is an SQLite file, but none of Optuna's")
            source.backup(target)
    except sqlite3.Error as error:
        raise InputError(
            f"{path} cannot be read: {error}",
            hint="wait until nobody writes to it, or read a copy",
        ) from error


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn what Optuna raises about a file into an error that names it."""
    from optuna.exceptions import OptunaError

    try:
        yield
    except (OptunaError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path} cannot be read by the installed Optuna: {error}",
            hint="`optuna storage upgrade` brings an older SQLite file up to it",
        ) from error


def _read(storage: BaseStorage, path: Path, name: str | None) -> Source:
    import optuna

    with _blaming(path):
        names = [one.study_name for one in optuna.get_all_study_summaries(storage)]
        chosen = _chosen(names, name, path)
        study = optuna.load_study(study_name=chosen, storage=storage)
        trials = study.get_trials(deepcopy=False)
    if len(study.directions) != 1:
        raise InputError(
            f"a study must have one objective; {chosen!r} of {path} has {len(study.directions)}"
        )
    space, fixed, notes = _space(trials)
    ended = [trial for trial in trials if trial.state.name in _ENDINGS]
    return Source(
        kind=f"Optuna study {chosen!r}",
        name=chosen,
        metric=(study.metric_names or [_VALUE])[0],
        direction="maximize" if study.direction.name == "MAXIMIZE" else "minimize",
        rows=tuple(_row(trial) for trial in ended),
        left=tuple(
            Left(f"trial {trial.number}", f"it has not ended ({trial.state.name.lower()})")
            for trial in trials
            if trial.state.name not in _ENDINGS
        ),
        space=space,
        fixed=fixed,
        notes=tuple(notes),
    )


def _chosen(names: Sequence[str], name: str | None, path: Path) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name is not None and name in names:
        return name
    held = ", ".join(map(repr, names)) or "none"
    wanted = "which study?" if name is None else f"there is no study {name!r}:"
    raise InputError(f"{wanted} {path} holds {held}", hint="name one with --optuna-study NAME")


def _space(trials: Sequence[FrozenTrial]) -> tuple[Space, dict[str, Value], list[str]]:
    """Return the space that holds the distributions of all trials, what is fixed, and notes.

    Raises:
        SpaceError: no trial has a hyperparameter that varies, or one of them has two kinds.
    """
    found: dict[str, BaseDistribution] = {}
    notes: dict[str, None] = {}
    for trial in trials:
        for name, one in trial.distributions.items():
            known = found.setdefault(name, one)
            if known != one:
                found[name] = _joined(name, known, one)
                notes[f"{name}: its range changed between trials; it is as wide as all of them"] = (
                    None
                )
    if not found:
        raise SpaceError("none of the trials has a hyperparameter")
    rows = [_values(trial) for trial in trials if trial.params]
    whole = [_values(trial) for trial in trials if trial.state.name == "COMPLETE"]
    fixed = {
        name: next(row[name] for row in rows if name in row)
        for name, one in found.items()
        if one.single() and all(name in row for row in whole)  # else it depends on another one
    }
    tuned = {name: one for name, one in found.items() if name not in fixed}
    if not tuned:
        raise nothing_varies()
    space = from_distributions(tuned)
    conditional = Space(with_conditions(list(space), rows))
    if conditional != space:
        notes["conditions are read off the trials: Optuna does not keep them"] = None
    return conditional, fixed, list(notes)


def _joined(name: str, a: BaseDistribution, b: BaseDistribution) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    for kind in (FloatDistribution, IntDistribution):
        if isinstance(a, kind) and isinstance(b, kind):
            low, high = min(a.low, b.low), max(a.high, b.high)
            return kind(low, high, log=a.log and b.log)
    raise SpaceError(f"{name} is of two kinds: {a} and {b}", hint="give the space with --task")


def _values(trial: FrozenTrial) -> dict[str, Any]:
    return {name: named(value) for name, value in trial.params.items()}


def _row(trial: FrozenTrial) -> Row:
    steps = tuple(sorted(trial.intermediate_values.items()))
    row = Row(f"trial {trial.number}", _values(trial), _ENDINGS[trial.state.name], None, steps)
    if row.ending == "complete":
        return replace(row, score=trial.value)
    return replace(row, score=steps[-1][1] if steps and row.ending == "pruned" else None)
