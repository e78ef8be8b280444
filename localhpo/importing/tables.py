"""Reads trials from CSV and JSON: exports of W&B sweeps, Optuna's data frames, lists of one's own.

Which columns are hyperparameters: those that the user names, else those with a prefix that says
so (`params_`, `config.`), else all but the metric, the state, and what is known to be about the
run (`Name`, `Runtime`, `duration`, ...). A row of JSON may hold them in an object of its own.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.errors import InputError, did_you_mean
from localhpo.importing.source import Ending, Left, Row, Source

_PREFIXES = ("params_", "params.", "config.", "config/", "param_")
_NESTED = ("config", "params", "parameters")
"""Objects of a JSON row that hold its hyperparameters."""

_METRIC_PREFIXES = ("", "summary.", "summary/", "metrics.")
_METRICS = ("value", "score", "objective")
"""Names under which a metric is found where none is given."""

_ABOUT = frozenset(
    {
        "id", "name", "notes", "user", "tags", "created", "runtime", "sweep", "group", "jobtype",
        "hostname", "commit", "number", "trial", "index", "duration", "datetime_start",
        "datetime_complete", "seconds", "wall_s", "time", "timestamp", "date", "seed", "origin",
        "rationale", "state", "status",
    }
)  # fmt: skip
"""Columns about the run; those that begin with `_`, `user_attrs` or `system_attrs` are too."""

_STATES: Mapping[str, Ending | None] = {
    **dict.fromkeys(("complete", "completed", "finished", "ok", "success"), "complete"),
    **dict.fromkeys(("failed", "fail", "crashed", "error", "killed"), "failed"),
    **dict.fromkeys(("pruned", "stopped", "early_stopped"), "pruned"),
    **dict.fromkeys(("running", "waiting", "queued", "pending", "interrupted", "preempted")),
}
"""In lower case, as other programs write them; None: the trial has not ended."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are what."""

    metric: str
    state: str | None
    values: Mapping[str, str]
    """Column to hyperparameter."""


def read(path: Path, *, metric: str | None, params: Collection[str] | None) -> Source:
    """Return the trials of a CSV, JSON or JSON Lines file.

    Args:
        path: the file.
        metric: column of the score; None where its name tells.
        params: columns that are hyperparameters; None where the rest is.

    Raises:
        InputError: it cannot be read, or has no such columns.
    """
    kind, entries = _entries(path)
    records = [entry for entry in entries if not isinstance(entry, Left)]
    if not records:
        raise InputError(f"{path} holds no trials")
    names = list(dict.fromkeys(name for _, record in records for name in record))
    columns = _columns(names, metric, params, path)
    rows = [_row(where, record, columns) for where, record in records]
    unused = [n for n in names if n not in {columns.metric, columns.state, *columns.values}]
    return Source(
        kind=kind if "Sweep" not in names and "Runtime" not in names else "W&B export",
        name=path.stem,
        metric=_bare(columns.metric, _METRIC_PREFIXES[1:]),
        direction=None,
        rows=tuple(row for row in rows if isinstance(row, Row)),
        left=(
            *(entry for entry in entries if isinstance(entry, Left)),
            *(row for row in rows if isinstance(row, Left)),
        ),
        notes=(f"columns that are not read: {', '.join(unused)}",) if unused else (),
    )


def _entries(path: Path) -> tuple[str, list[tuple[str, dict[str, Any]] | Left]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    start = text.lstrip()[:1]
    if start == "[":
        return "JSON", list(_of_list(text, path))
    if start == "{":
        return "JSON Lines", list(_of_lines(text))
    return "CSV", list(_of_csv(text))


def _of_list(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]] | Left]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    for number, item in enumerate(items):
        yield _entry(f"item {number}", item)


def _of_lines(text: str) -> Iterator[tuple[str, dict[str, Any]] | Left]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            yield Left(f"line {number}", f"it is not valid JSON: {error}")
        else:
            yield _entry(f"line {number}", item)


def _entry(where: str, item: Any) -> tuple[str, dict[str, Any]] | Left:
    """Return a JSON row, its hyperparameters brought up with the prefix that says what they are."""
    if not isinstance(item, dict):
        return Left(where, "it must be an object of names and values")
    flat: dict[str, Any] = {}
    for name, value in item.items():
        if name in _NESTED and isinstance(value, dict):
            flat |= {f"params.{key}": one for key, one in value.items()}
        elif not isinstance(value, dict | list):
            flat[name] = value
    return where, {name: value for name, value in flat.items() if value is not None}


def _of_csv(text: str) -> Iterator[tuple[str, dict[str, Any]] | Left]:
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    for cells in reader:
        where = f"line {reader.line_num}"
        if not cells:
            continue
        if len(cells) != len(header):
            yield Left(where, f"it has {len(cells)} cells, the header {len(header)}")
            continue
        named = zip(header, cells, strict=True)
        yield where, {name: _value(cell) for name, cell in named if cell.strip()}


def _value(cell: str) -> Any:
    """Return what the text of a cell means: a number, true or false, else itself."""
    text = cell.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _columns(
    names: Sequence[str], metric: str | None, params: Collection[str] | None, path: Path
) -> Columns:
    found = _metric(names, metric, path)
    state = next((name for name in names if name.lower() in ("state", "status")), None)
    values = {name: _bare(name, _PREFIXES) for name in names if name.startswith(_PREFIXES)}
    if not values:
        values = {n: n for n in names if n not in (found, state) and not _is_about(n)}
    if params is not None:
        everything = {name: name for name in names} | values
        values = {column: name for column, name in everything.items() if name in params}
        if not values:
            raise InputError(
                f"{path} must have columns for the hyperparameters {', '.join(params)}; "
                f"it has {', '.join(names)}"
            )
    return Columns(found, state, values)


def _metric(names: Sequence[str], metric: str | None, path: Path) -> str:
    wanted = (metric,) if metric else _METRICS
    for name in wanted:
        for prefix in _METRIC_PREFIXES:
            if f"{prefix}{name}" in names:
                return f"{prefix}{name}"
    said = f"a column {metric!r}" if metric else "a column value, score or objective"
    near = did_you_mean(metric or "", names)
    raise InputError(
        f"{path} must have {said}, the metric; it has {', '.join(names)}",
        hint=near or "name the column with --metric",
    )


def _bare(name: str, prefixes: Sequence[str]) -> str:
    return next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)


def _is_about(name: str) -> bool:
    plain = name.lower().replace(" ", "")
    return not plain or plain in _ABOUT or plain.startswith(("_", "user_attrs", "system_attrs"))


def _row(where: str, record: Mapping[str, Any], columns: Columns) -> Row | Left:
    score = record.get(columns.metric)
    number = isinstance(score, int | float) and not isinstance(score, bool)
    ending: Ending | None = "complete"
    if columns.state is not None and columns.state in record:
        word = str(record[columns.state]).lower().removeprefix("trialstate.")
        if word not in _STATES:
            return Left(where, f"its state {word!r} is not known")
        ending = _STATES[word]
    if ending is None:
        return Left(where, "it has not ended")
    if ending != "failed" and not number:
        return Left(where, f"{columns.metric} must be a number, got {score!r}")
    values = {name: record[col] for col, name in columns.values.items() if col in record}
    bad = [n for n, v in values.items() if isinstance(v, float) and not math.isfinite(v)]
    if bad:
        return Left(where, f"{bad[0]} is {values[bad[0]]}, no value that a trial can have")
    return Row(where, values, ending, float(score) if number and score is not None else None)
