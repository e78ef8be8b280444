"""From a file to the reader that knows it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from localhpo.errors import InputError
from localhpo.importing.source import Source

_SCHEME = "sqlite:///"


def read(
    target: str,
    *,
    study: str | None = None,
    metric: str | None = None,
    params: Collection[str] | None = None,
) -> Source:
    """Return the trials that a file holds, whatever wrote it; it is told by its content.

    Args:
        target: a path, or the URL of an SQLite file as Optuna writes it.
        study: of Optuna, where there are several.
        metric: column of the score in a table.
        params: columns that are hyperparameters in a table.

    Raises:
        InputError: it cannot be read, or holds nothing of that kind.
    """
    path = _path(target)
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    from localhpo.importing import optuna, tables

    if start.startswith(optuna.SQLITE):
        return optuna.read_sqlite(path, study)
    if start.startswith(b"{") and b'"op_code"' in start.partition(b"\n")[0]:
        return optuna.read_journal(path, study)
    return tables.read(path, metric=metric, params=params)


def _path(target: str) -> Path:
    if target.startswith(_SCHEME):
        return Path(target.removeprefix(_SCHEME))
    if "://" in target:
        raise InputError(
            f"what is imported must be a file, or {_SCHEME}PATH; got {target!r}",
            hint="`optuna.copy_study` copies a study from a server to a file",
        )
    return Path(target)
