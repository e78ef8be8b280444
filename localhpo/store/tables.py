"""A study into the tables, and out of them: all SQL on rows is here.

Times are kept to the microsecond (TIMESTAMPTZ); one that is not finite or before 1970 is NULL.
All else comes back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from localhpo.store import codec
from localhpo.store.codec import Body
from localhpo.store.fold import Fold
from localhpo.store.records import StudyRecord
from localhpo.store.spool import Header, Line

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = dict[str, Any]
"""Column -> value."""

_OF_A_TRIAL = ("trials", "proposals", "resources")
"""Tables whose rows are written anew when a trial changes."""
_ALL = (*_OF_A_TRIAL, "metrics", "events", "studies")

_PLAIN_OF_A_TRIAL = ("state", "score", "summary", "seed", "restarts")
_TIMES_OF_A_TRIAL = ("queued_at", "started_at", "finished_at")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000 = 253_402_300_800.0


def positions(connection: DuckDBPyConnection) -> dict[str, tuple[str, int]]:
    """Return, by study, which spool is in the tables and how many bytes of it."""
    rows = connection.execute("SELECT study, spool_id, spool_bytes FROM studies").fetchall()
    return {study: (spool_id, spool_bytes) for study, spool_id, spool_bytes in rows}


def position(connection: DuckDBPyConnection, header: Header, end: int) -> int:
    """Return how far into this spool, which is `end` long, the tables go.

    0 where they hold another spool of that name (the folder was deleted and the study run
    again), or more than this one says (an older copy was put back).
    """
    spool_id, spool_bytes = positions(connection).get(header.record.name, ("", 0))
    return spool_bytes if spool_id == header.spool_id and spool_bytes <= end else 0


def write(
    connection: DuckDBPyConnection,
    header: Header,
    trials: Mapping[int, Body],
    lines: Iterable[Line],
    start: int,
    end: int,
) -> None:
    """Bring the rows of a study from one place of its spool up to a later one.

    Args:
        connection: in a transaction.
        header: the first line of the spool.
        trials: as they are at `end` (`Fold.trials`).
        lines: what the spool says between `start` and `end`.
        start: what `position` returned. From 0 on, rows of another spool are deleted first.
        end: the later place.
    """
    study = header.record.name
    if start == 0:
        for table in _ALL:
            connection.execute(f"DELETE FROM {table} WHERE study = ?", [study])
    changed: dict[int, Body] = {}
    metrics: list[Row] = []
    events: list[Row] = []
    for kind, body in lines:
        if kind == "trial":
            changed[body["number"]] = trials[body["number"]]
        elif kind == "measurements" and body["run"] == trials[body["trial"]]["restarts"]:
            metrics += [_metric_row(study, body["trial"], row) for row in body["rows"]]
        elif kind == "event":
            events.append(_event_row(study, body))
    _drop_earlier_runs(connection, study, changed)
    _replace_trials(connection, study, changed)
    insert(connection, "metrics", metrics)
    insert(connection, "events", events)
    connection.execute("DELETE FROM studies WHERE study = ?", [study])
    insert(connection, "studies", [_study_row(header, end)])


def read_records(connection: DuckDBPyConnection) -> list[StudyRecord]:
    """Return the records of all studies."""
    rows = connection.execute(
        "SELECT study, task, settings, epoch_us(created_at), version FROM studies"
    ).fetchall()
    return [
        StudyRecord(name, task, codec.loads(settings), micros / 1e6, version)
        for name, task, settings, micros, version in rows
    ]


def read(connection: DuckDBPyConnection, study: str) -> Fold:
    """Return what the tables hold of a study.

    Raises:
        ValueError, KeyError: rows were doubled, or deleted, by hand.
    """
    fold = Fold()
    proposals = _by_trial(_select(connection, "proposals", study))
    usages = _by_trial(_select(connection, "resources", study))
    trials = _by_trial(_select(connection, "trials", study, times=_TIMES_OF_A_TRIAL))
    for number, row in trials.items():
        fold.trials[number] = _trial_body(number, row, proposals[number], usages[number])
    for row in _select(connection, "metrics", study, times=("time",)):
        fold.rows.setdefault(row.pop("trial"), []).append(list(row.values()))
    for row in _select(connection, "events", study, times=("time",)):
        fold.events.append({**row, "data": codec.loads(row["data"])})
    return fold


def as_read(fold: Fold) -> Fold:
    """Return what `read` would return of a study that was written like this."""
    return Fold(
        {number: _rounded(body, *_TIMES_OF_A_TRIAL) for number, body in fold.trials.items()},
        {n: [[*row, _round(time)] for *row, time in rows] for n, rows in fold.rows.items()},
        [_rounded(body, "time") for body in fold.events],
    )


def _drop_earlier_runs(
    connection: DuckDBPyConnection, study: str, changed: Mapping[int, Body]
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
    connection: DuckDBPyConnection, study: str, changed: Mapping[int, Body]
) -> None:
    if not changed:
        return
    for table in _OF_A_TRIAL:
        connection.execute(
            f"DELETE FROM {table} WHERE study = ? AND trial IN (SELECT unnest(?))",
            [study, list(changed)],
        )
    trials = [(study, changed[number]) for number in sorted(changed)]
    insert(connection, "trials", [_trial_row(*trial) for trial in trials])
    insert(connection, "proposals", [_proposal_row(*trial) for trial in trials])
    insert(connection, "resources", [_resources_row(*trial) for trial in trials])


def insert(connection: DuckDBPyConnection, table: str, rows: list[Row]) -> None:
    """Insert rows that all have the same columns.

    One list per column and one statement: 100,000 rows take 0.2 s; a statement per row takes
    about a minute.
    """
    if rows:
        columns = ", ".join(f"unnest(?) AS {name}" for name in rows[0])
        connection.execute(
            f"INSERT INTO {table} BY NAME SELECT {columns}",
            [[row[name] for row in rows] for name in rows[0]],
        )


def _select(
    connection: DuckDBPyConnection, table: str, study: str, times: Sequence[str] = ()
) -> list[Row]:
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
        row.update({name: _seconds(row[name]) for name in times})
    return rows


def _by_trial(rows: list[Row]) -> dict[int, Row]:
    by_trial = {row.pop("trial"): row for row in rows}
    if len(by_trial) < len(rows):
        raise ValueError("a trial has several rows in one table")
    return by_trial


def _json(value: object) -> str:
    return codec.dumps(value).decode()


def _timestamp(seconds: float | None) -> datetime | None:
    if seconds is None or not 0 <= seconds < _YEAR_10000:
        return None
    return _EPOCH + timedelta(microseconds=round(seconds * 1e6))


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1e6


def _round(seconds: float | None) -> float | None:
    timestamp = _timestamp(seconds)
    return None if timestamp is None else (timestamp - _EPOCH) / timedelta(seconds=1)


def _rounded(body: Body, *times: str) -> Body:
    return {**body, **{name: _round(body[name]) for name in times}}


def _study_row(header: Header, end: int) -> Row:
    record = header.record
    return {
        "study": record.name,
        "task": record.task_name,
        "created_at": _timestamp(record.created_at),
        "version": record.version,
        "settings": _json(record.settings),
        "spool_id": header.spool_id,
        "spool_bytes": end,
    }


def _trial_row(study: str, body: Body) -> Row:
    failure = body["failure"] or {"cause": None, "message": None, "stderr_tail": None}
    return {
        "study": study,
        "trial": body["number"],
        "config": _json(body["proposal"]["config"]),
        **failure,
        **{name: body[name] for name in _PLAIN_OF_A_TRIAL},
        "user_attrs": _json(body["user_attrs"]),
        **{name: _timestamp(body[name]) for name in _TIMES_OF_A_TRIAL},
    }


def _trial_body(number: int, row: Row, proposal: Row, usage: Row) -> Body:
    failure = {name: row[name] for name in ("cause", "message", "stderr_tail")}
    return {
        "number": number,
        **{name: row[name] for name in (*_PLAIN_OF_A_TRIAL, *_TIMES_OF_A_TRIAL)},
        "user_attrs": codec.loads(row["user_attrs"]),
        "failure": failure if row["cause"] is not None else None,
        "usage": usage,
        "proposal": {
            **proposal,
            "config": codec.loads(row["config"]),
            "engine_state": codec.loads(proposal["engine_state"]),
        },
    }


def _proposal_row(study: str, body: Body) -> Row:
    proposal = {name: value for name, value in body["proposal"].items() if name != "config"}
    return {
        "study": study,
        "trial": body["number"],
        **proposal,
        "engine_state": _json(proposal["engine_state"]),
    }


def _resources_row(study: str, body: Body) -> Row:
    # A spool of an earlier version knows fewer fields, and rows must have the same columns.
    return {"study": study, "trial": body["number"], **codec.complete_usage(body["usage"])}


def _metric_row(study: str, number: int, row: list[Any]) -> Row:
    step, name, value, time = row
    return {
        "study": study,
        "trial": number,
        "step": step,
        "name": name,
        "value": value,
        "time": _timestamp(time),
    }


def _event_row(study: str, body: Body) -> Row:
    return {
        "study": study,
        **body,
        "time": _timestamp(body["time"]),
        "data": _json(body["data"]),
    }
