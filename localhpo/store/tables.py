"""Rows of a study in `store.duckdb`: all SQL that writes or reads them.

Times are kept to the microsecond (TIMESTAMPTZ); one that is not finite or before 1970 is NULL.
Everything else comes back exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from localhpo.store import serialization
from localhpo.store.journal import Header, Line
from localhpo.store.records import StudyRecord
from localhpo.store.replay import ReplayedStudy
from localhpo.store.serialization import JsonObject

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Columns = dict[str, Any]
"""A row of a table: column -> value."""

_TRIAL_TABLES = ("trials", "proposals", "resources")
"""Tables with one row per trial, which is replaced when the trial changes."""
_ALL_TABLES = (*_TRIAL_TABLES, "metrics", "events", "studies")

_PLAIN_COLUMNS = ("state", "values", "violations", "summary", "seed", "restarts")
"""Columns of `trials` that hold a field of a trial as it is."""
_TIME_COLUMNS = ("queued_at", "started_at", "finished_at")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000 = 253_402_300_800.0


def read_positions(connection: DuckDBPyConnection) -> dict[str, tuple[str, int]]:
    """Return, by study, the id of the journal that is in the tables and how many bytes of it."""
    rows = connection.execute("SELECT study, journal_id, journal_bytes FROM studies").fetchall()
    return {study: (journal_id, journal_bytes) for study, journal_id, journal_bytes in rows}


def read_position(connection: DuckDBPyConnection, header: Header, size: int) -> int:
    """Return how many bytes of this journal, which has `size` bytes, are in the tables.

    0 where they hold another journal of that name (the folder was deleted and the study run
    again, or an old journal was converted), or more than this one has (an older copy was put
    back).
    """
    journal_id, position = read_positions(connection).get(header.record.name, ("", 0))
    return position if journal_id == header.journal_id and position <= size else 0


def write_study(
    connection: DuckDBPyConnection,
    header: Header,
    trials: Mapping[int, JsonObject],
    lines: Iterable[Line],
    start: int,
    end: int,
) -> None:
    """Bring the rows of a study from one position in its journal up to a later one.

    Args:
        connection: in a transaction.
        header: the first line of the journal.
        trials: as they are at `end` (`ReplayedStudy.trials`).
        lines: of the journal between `start` and `end`.
        start: what `read_position` returned. From 0 on, earlier rows of the study are deleted.
        end: the later position.
    """
    study = header.record.name
    if start == 0:
        for table in _ALL_TABLES:
            connection.execute(f"DELETE FROM {table} WHERE study = ?", [study])
    changed: dict[int, JsonObject] = {}
    metrics: list[Columns] = []
    events: list[Columns] = []
    for kind, body in lines:
        if kind == "trial":
            changed[body["number"]] = trials[body["number"]]
        elif kind == "measurements" and body["run"] == trials[body["trial"]]["restarts"]:
            metrics += [_metric_columns(study, body["trial"], row) for row in body["rows"]]
        elif kind == "event":
            events.append(_event_columns(study, body))
    changed = {number: serialization.complete_trial(body) for number, body in changed.items()}
    _drop_earlier_runs(connection, study, changed)
    _replace_trials(connection, study, changed)
    insert_rows(connection, "metrics", metrics)
    insert_rows(connection, "events", events)
    connection.execute("DELETE FROM studies WHERE study = ?", [study])
    insert_rows(connection, "studies", [_study_columns(header, end)])


def read_records(connection: DuckDBPyConnection) -> list[StudyRecord]:
    """Return the records of all studies."""
    rows = connection.execute(
        "SELECT study, task, settings, epoch_us(created_at), version FROM studies"
    ).fetchall()
    return [
        StudyRecord(name, task, json.loads(settings), micros / 1e6, version)
        for name, task, settings, micros, version in rows
    ]


def read_study(connection: DuckDBPyConnection, name: str) -> ReplayedStudy:
    """Return what the tables hold of a study.

    Raises:
        ValueError, KeyError: rows were doubled, or deleted, by hand.
    """
    study = ReplayedStudy()
    proposals = _index_by_trial(_select(connection, "proposals", name))
    usages = _index_by_trial(_select(connection, "resources", name))
    trials = _index_by_trial(_select(connection, "trials", name, times=_TIME_COLUMNS))
    for number, row in trials.items():
        study.trials[number] = _to_trial(number, row, proposals[number], usages[number])
    for row in _select(connection, "metrics", name, times=("time",)):
        study.measurements.setdefault(row.pop("trial"), []).append(list(row.values()))
    for row in _select(connection, "events", name, times=("time",)):
        study.events.append({**row, "data": json.loads(row["data"])})
    return study


def round_times(study: ReplayedStudy) -> ReplayedStudy:
    """Return what `read_study` would return after this study was written."""
    return ReplayedStudy(
        {
            number: _with_rounded(serialization.complete_trial(body), *_TIME_COLUMNS)
            for number, body in study.trials.items()
        },
        {n: [[*row, _round(t)] for *row, t in rows] for n, rows in study.measurements.items()},
        [_with_rounded(serialization.complete_event(body), "time") for body in study.events],
    )


def _drop_earlier_runs(
    connection: DuckDBPyConnection, study: str, changed: Mapping[int, JsonObject]
) -> None:
    runs = {number: body["restarts"] for number, body in changed.items() if body["restarts"]}
    if runs:
        connection.execute(
            "DELETE FROM metrics WHERE study = $study AND trial IN ("
            "  SELECT trial FROM trials"
            "  JOIN (SELECT unnest($trials) AS trial, unnest($runs) AS run) USING (trial)"
            "  WHERE study = $study AND restarts < run)",
            {"study": study, "trials": list(runs), "runs": list(runs.values())},
        )


def _replace_trials(
    connection: DuckDBPyConnection, study: str, changed: Mapping[int, JsonObject]
) -> None:
    if not changed:
        return
    for table in _TRIAL_TABLES:
        connection.execute(
            f"DELETE FROM {table} WHERE study = ? AND trial IN (SELECT unnest(?))",
            [study, list(changed)],
        )
    trials = [(study, changed[number]) for number in sorted(changed)]
    insert_rows(connection, "trials", [_trial_columns(*trial) for trial in trials])
    insert_rows(connection, "proposals", [_proposal_columns(*trial) for trial in trials])
    usages = [{"study": study, "trial": n, **changed[n]["usage"]} for n in sorted(changed)]
    insert_rows(connection, "resources", usages)


def insert_rows(connection: DuckDBPyConnection, table: str, rows: Sequence[Columns]) -> None:
    """Insert rows that all have the same columns.

    One list per column and one statement: 100,000 rows take 0.2 s; a statement per row takes
    about a minute.

    Raises:
        ValueError: a row has other columns than the first one.
    """
    if not rows:
        return
    names = rows[0].keys()
    for row in rows:
        if row.keys() != names:
            raise ValueError(f"rows of {table} differ in {sorted(row.keys() ^ names)}")
    columns = ", ".join(f'unnest(?) AS "{name}"' for name in names)
    connection.execute(
        f"INSERT INTO {table} BY NAME SELECT {columns}",
        [[row[name] for row in rows] for name in names],
    )


def _select(
    connection: DuckDBPyConnection, table: str, study: str, times: Sequence[str] = ()
) -> list[Columns]:
    """Return the rows of a study in the order in which they were inserted.

    Times come as microseconds: DuckDB needs another package to hand a TIMESTAMPTZ to Python.
    """
    micros = ", ".join(f"epoch_us({name}) AS {name}" for name in times)
    replace = f"REPLACE ({micros})" if times else ""
    cursor = connection.execute(
        f"SELECT * EXCLUDE (study) {replace} FROM {table} WHERE study = ? ORDER BY rowid", [study]
    )
    names = [column[0] for column in cursor.description or ()]
    rows = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    for row in rows:
        row.update({name: _to_seconds(row[name]) for name in times})
    return rows


def _index_by_trial(rows: list[Columns]) -> dict[int, Columns]:
    by_trial = {row.pop("trial"): row for row in rows}
    if len(by_trial) < len(rows):
        raise ValueError("a trial has several rows in one table")
    return by_trial


def _to_json(value: object) -> str:
    return serialization.dumps(value).decode()


def _to_timestamp(seconds: float | None) -> datetime | None:
    if seconds is None or not 0 <= seconds < _YEAR_10000:
        return None
    return _EPOCH + timedelta(microseconds=round(seconds * 1e6))


def _to_seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1e6


def _round(seconds: float | None) -> float | None:
    timestamp = _to_timestamp(seconds)
    return None if timestamp is None else (timestamp - _EPOCH) / timedelta(seconds=1)


def _with_rounded(body: JsonObject, *times: str) -> JsonObject:
    return {**body, **{name: _round(body[name]) for name in times}}


def _study_columns(header: Header, end: int) -> Columns:
    record = header.record
    return {
        "study": record.name,
        "task": record.task_name,
        "created_at": _to_timestamp(record.created_at),
        "version": record.version,
        "settings": _to_json(record.settings),
        "journal_id": header.journal_id,
        "journal_bytes": end,
    }


def _trial_columns(study: str, body: JsonObject) -> Columns:
    failure = body["failure"] or {"cause": None, "message": None, "stderr_tail": None}
    return {
        "study": study,
        "trial": body["number"],
        "config": _to_json(body["proposal"]["config"]),
        **failure,
        **{name: body[name] for name in _PLAIN_COLUMNS},
        "user_attrs": _to_json(body["user_attrs"]),
        **{name: _to_timestamp(body[name]) for name in _TIME_COLUMNS},
    }


def _to_trial(number: int, row: Columns, proposal: Columns, usage: Columns) -> JsonObject:
    failure = {name: row[name] for name in ("cause", "message", "stderr_tail")}
    return {
        "number": number,
        **{name: row[name] for name in (*_PLAIN_COLUMNS, *_TIME_COLUMNS)},
        "user_attrs": json.loads(row["user_attrs"]),
        "failure": failure if row["cause"] is not None else None,
        "usage": usage,
        "proposal": {
            **proposal,
            "config": json.loads(row["config"]),
            "details": json.loads(proposal["details"]),
            "engine_state": json.loads(proposal["engine_state"]),
        },
    }


def _proposal_columns(study: str, body: JsonObject) -> Columns:
    proposal = {name: value for name, value in body["proposal"].items() if name != "config"}
    return {
        "study": study,
        "trial": body["number"],
        **proposal,
        "details": _to_json(proposal["details"]),
        "engine_state": _to_json(proposal["engine_state"]),
    }


def _metric_columns(study: str, number: int, row: list[Any]) -> Columns:
    step, name, value, time = row
    return {
        "study": study,
        "trial": number,
        "step": step,
        "name": name,
        "value": value,
        "time": _to_timestamp(time),
    }


def _event_columns(study: str, body: JsonObject) -> Columns:
    event = serialization.complete_event(body)
    return {
        "study": study,
        **event,
        "time": _to_timestamp(event["time"]),
        "data": _to_json(event["data"]),
    }
