"""Reads trials from CSV and JSON: exports of W&B sweeps, data frames of Optuna, own lists.

Hyperparameters are the columns that the user names, else those with a prefix that says so
(`params_`, `config.`), else all but the metrics, the state, and known columns about the run
(`Name`, `Runtime`, `duration`, ...). A row of JSON may have them in an object of its own.
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
from localhpo.importers.source import Ending, SkippedRow, SourceTrial, TrialSource
from localhpo.objective import MEASURED

_PREFIXES = ("params_", "params.", "config.", "config/", "param_")
_NESTED = ("config", "params", "parameters")
"""Objects of a JSON row that contain its hyperparameters."""

_METRIC_PREFIXES = ("", "summary.", "summary/", "metrics.")
_METRICS = ("value", "score", "objective")
"""Usual names of a metric, for files without one that is named."""

_RUN_COLUMNS = frozenset(
    {
        "id", "name", "notes", "user", "tags", "created", "runtime", "sweep", "group", "jobtype",
        "hostname", "commit", "number", "trial", "index", "duration", "datetime_start",
        "datetime_complete", "seconds", "wall_s", "time", "timestamp", "date", "seed", "origin",
        "rationale", "state", "status",
    }
)  # fmt: skip
"""Columns about the run, as are those that begin with `_`, `user_attrs` or `system_attrs`."""

_STATES: Mapping[str, Ending | None] = {
    **dict.fromkeys(("complete", "completed", "finished", "ok", "success"), "complete"),
    **dict.fromkeys(("failed", "fail", "crashed", "error", "killed"), "failed"),
    **dict.fromkeys(("pruned", "stopped", "early_stopped"), "pruned"),
    **dict.fromkeys(("running", "waiting", "queued", "pending", "interrupted", "preempted")),
}
"""State in lower case, as other programs write it; None: the trial has not ended."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The meaning of each column that is read."""

    metrics: Mapping[str, str]
    """Column to metric: objectives and constrained metrics."""
    state: str | None
    params: Mapping[str, str]
    """Column to hyperparameter."""


def read_table(
    path: Path,
    *,
    metrics: Sequence[str] = (),
    constrained: Sequence[str] = (),
    params: Collection[str] | None = None,
) -> TrialSource:
    """Return the trials of a CSV, JSON or JSON Lines file.

    Args:
        path: the file.
        metrics: columns of the objectives; empty: a column with a usual name is looked for.
        constrained: columns of constrained metrics. What LocalHPO measures may be missing.
        params: columns that are hyperparameters; None: all other ones.

    Raises:
        InputError: the file cannot be read, or has no such columns.
    """
    kind, entries = _entries(path)
    records = [entry for entry in entries if not isinstance(entry, SkippedRow)]
    if not records:
        raise InputError(f"{path} holds no trials")
    names = list(dict.fromkeys(name for _, record in records for name in record))
    columns, objectives = _columns(names, metrics, constrained, params, path)
    rows = [_read_row(where, record, columns) for where, record in records]
    used = {columns.state, *columns.metrics, *columns.params}
    unused = [name for name in names if name not in used]
    return TrialSource(
        kind=kind if "Sweep" not in names and "Runtime" not in names else "W&B export",
        name=path.stem,
        metrics=objectives,
        directions=(),
        trials=tuple(row for row in rows if isinstance(row, SourceTrial)),
        skipped=(
            *(entry for entry in entries if isinstance(entry, SkippedRow)),
            *(row for row in rows if isinstance(row, SkippedRow)),
        ),
        notes=(f"columns that are not read: {', '.join(unused)}",) if unused else (),
    )


def _entries(path: Path) -> tuple[str, list[tuple[str, dict[str, Any]] | SkippedRow]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    start = text.lstrip()[:1]
    if start == "[":
        return "JSON", list(_list_entries(text, path))
    if start == "{":
        return "JSON Lines", list(_line_entries(text))
    return "CSV", list(_csv_entries(text))


def _list_entries(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]] | SkippedRow]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    for number, item in enumerate(items):
        yield _entry(f"item {number}", item)


def _line_entries(text: str) -> Iterator[tuple[str, dict[str, Any]] | SkippedRow]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            yield SkippedRow(f"line {number}", f"it is not valid JSON: {error}")
        else:
            yield _entry(f"line {number}", item)


def _entry(where: str, item: Any) -> tuple[str, dict[str, Any]] | SkippedRow:
    """Return a JSON row with nested hyperparameters as `params.NAME`."""
    if not isinstance(item, dict):
        return SkippedRow(where, "it must be an object of names and values")
    flat: dict[str, Any] = {}
    for name, value in item.items():
        if name in _NESTED and isinstance(value, dict):
            flat |= {f"params.{key}": one for key, one in value.items()}
        elif not isinstance(value, dict | list):
            flat[name] = value
    return where, {name: value for name, value in flat.items() if value is not None}


def _csv_entries(text: str) -> Iterator[tuple[str, dict[str, Any]] | SkippedRow]:
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    for cells in reader:
        where = f"line {reader.line_num}"
        if not cells:
            continue
        if len(cells) != len(header):
            yield SkippedRow(where, f"it has {len(cells)} cells, the header {len(header)}")
            continue
        named = zip(header, cells, strict=True)
        yield where, {name: _value(cell) for name, cell in named if cell.strip()}


def _value(cell: str) -> Any:
    """Return the value of a cell: a number, true or false, else its text."""
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
    names: Sequence[str],
    metrics: Sequence[str],
    constrained: Sequence[str],
    params: Collection[str] | None,
    path: Path,
) -> tuple[Columns, tuple[str, ...]]:
    """Return the columns that are read, and the metrics that are objectives."""
    objectives = [_find_metric(names, (metric,), path) for metric in metrics] or [
        _find_metric(names, _METRICS, path)
    ]
    metric_columns = {column: _bare(column, _METRIC_PREFIXES[1:]) for column in objectives}
    for metric in constrained:
        if metric not in MEASURED or _metric_column(names, metric) is not None:
            metric_columns[_find_metric(names, (metric,), path)] = metric
    state = next((name for name in names if name.lower() in ("state", "status")), None)
    known = {*metric_columns, state}
    columns = {name: _bare(name, _PREFIXES) for name in names if name.startswith(_PREFIXES)}
    if not columns:
        columns = {n: n for n in names if n not in known and not _is_about_run(n)}
    if params is not None:
        everything = {name: name for name in names} | columns
        columns = {column: name for column, name in everything.items() if name in params}
        if not columns:
            raise InputError(
                f"{path} must have columns for the hyperparameters {', '.join(params)}; "
                f"it has {', '.join(names)}"
            )
    return Columns(metric_columns, state, columns), tuple(metric_columns[one] for one in objectives)


def _metric_column(names: Sequence[str], metric: str) -> str | None:
    return next((f"{p}{metric}" for p in _METRIC_PREFIXES if f"{p}{metric}" in names), None)


def _find_metric(names: Sequence[str], wanted: Sequence[str], path: Path) -> str:
    """Return the column of the first metric that there is.

    Raises:
        InputError: there is none of them.
    """
    for name in wanted:
        if (column := _metric_column(names, name)) is not None:
            return column
    *others, last = wanted
    expected = f"{', '.join(others)} or {last}" if others else repr(last)
    raise InputError(
        f"{path} must have a column {expected} for a metric; it has {', '.join(names)}",
        hint=(did_you_mean(last, names) if not others else "") or "name the column with --metric",
    )


def _bare(name: str, prefixes: Sequence[str]) -> str:
    return next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)


def _is_about_run(name: str) -> bool:
    plain = name.lower().replace(" ", "")
    return (
        not plain or plain in _RUN_COLUMNS or plain.startswith(("_", "user_attrs", "system_attrs"))
    )


def _read_row(where: str, record: Mapping[str, Any], columns: Columns) -> SourceTrial | SkippedRow:
    ending: Ending | None = "complete"
    if columns.state is not None and columns.state in record:
        word = str(record[columns.state]).lower().removeprefix("trialstate.")
        if word not in _STATES:
            return SkippedRow(where, f"its state {word!r} is not known")
        ending = _STATES[word]
    if ending is None:
        return SkippedRow(where, "it has not ended")
    metrics: dict[str, float] = {}
    for column, metric in columns.metrics.items():
        value = record.get(column)
        if isinstance(value, int | float) and not isinstance(value, bool):
            metrics[metric] = float(value)
        elif ending != "failed":
            return SkippedRow(where, f"{column} must be a number, got {value!r}")
    params = {name: record[col] for col, name in columns.params.items() if col in record}
    bad = [n for n, v in params.items() if isinstance(v, float) and not math.isfinite(v)]
    if bad:
        return SkippedRow(where, f"{bad[0]} is {params[bad[0]]}, which no hyperparameter can be")
    return SourceTrial(where, params, ending, metrics)
