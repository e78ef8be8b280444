"""The results of comparisons: a DuckDB file of its own beside the studies.

One row per study that a Creator ran on a problem (a unit), one per trial of it, and one per
problem with the values that regret is measured by. Each unit names its problem and its Creator by
hashes: what was measured on another problem of that name, or with another model, stays in the
file and is not read.

While another process keeps the file open, as a shell does that somebody left open, rows are
written to files beside it (`unsaved-*.json`). They are added before the next reading or writing
that finds the database free.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localhpo import __version__
from localhpo.store.database import Database, DatabaseBusyError
from localhpo.store.errors import as_store_errors
from localhpo.store.paths import default_home
from localhpo.store.tables import insert_rows
from localhpo.trial import Origin

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILE = "results.duckdb"
_UNSAVED = "unsaved-"

_WAIT_S = 10.0
"""How long to wait for another process that has the file; beyond that, a shell was left open."""

_UNSAVED_WAIT_S = 1.0
"""The same where rows can be written to a file of their own instead."""

_TABLES = """
CREATE TABLE units (
    unit VARCHAR NOT NULL, problem VARCHAR NOT NULL, problem_digest VARCHAR NOT NULL,
    creator VARCHAR NOT NULL, creator_digest VARCHAR NOT NULL, model_digest VARCHAR NOT NULL,
    seed INTEGER NOT NULL, budget INTEGER NOT NULL, version VARCHAR NOT NULL,
    wall_s DOUBLE NOT NULL, finished_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE units IS 'one row per study that a Creator ran on a problem';
COMMENT ON COLUMN units.problem_digest IS 'of its definition: scores of another do not compare';
COMMENT ON COLUMN units.creator_digest IS 'of all that decides proposals: source, prompts, model';
COMMENT ON COLUMN units.model_digest IS 'of the model alone; empty where none is asked';
COMMENT ON COLUMN units.seed IS 'number of the repetition: the same luck for every Creator';
COMMENT ON COLUMN units.budget IS 'trials of the study; fewer ran where the space was used up';
COMMENT ON COLUMN units.version IS 'of LocalHPO';

CREATE TABLE trials (
    unit VARCHAR NOT NULL, number INTEGER NOT NULL, state VARCHAR NOT NULL, score DOUBLE,
    config JSON NOT NULL, origin VARCHAR NOT NULL, tries INTEGER NOT NULL,
    seconds DOUBLE NOT NULL, prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL,
    repeated BOOLEAN NOT NULL, invalid BOOLEAN NOT NULL, note VARCHAR NOT NULL
);
COMMENT ON TABLE trials IS 'one row per trial of a unit';
COMMENT ON COLUMN trials.tries IS 'configurations drawn until this one was new';
COMMENT ON COLUMN trials.seconds IS 'that the proposal took';
COMMENT ON COLUMN trials.repeated IS 'whether it ran what an earlier trial had run';
COMMENT ON COLUMN trials.invalid IS 'whether it was not in the space';

CREATE TABLE problems (
    problem VARCHAR NOT NULL, problem_digest VARCHAR NOT NULL, direction VARCHAR NOT NULL,
    best DOUBLE NOT NULL, median DOUBLE NOT NULL, added_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE problems IS 'the scores by which regret is measured: 0 at best, 1 at median';
COMMENT ON COLUMN problems.best IS 'the best known without any Creator';
"""


_KEY = "problem, problem_digest, creator, creator_digest, seed, budget"
"""Columns of `UnitKey`."""

_COMMENTS = (
    ("units", "problem_digest", "hash of the definition: values of another one do not compare"),
    ("units", "creator_digest", "hash of all that decides proposals: source, prompts, model"),
    ("units", "model_digest", "hash of the language model; empty where none is used"),
    ("units", "seed", "number of the repetition: the same random choices for every Creator"),
    ("units", "budget", "trials of the study; fewer ran where the whole space was tried"),
    ("units", "version", "version of LocalHPO"),
    ("trials", "tries", "configurations drawn until one was valid and had not been tried"),
    ("trials", "seconds", "time that the proposal took"),
    ("trials", "repeated", "whether it ran a configuration that an earlier trial had run"),
    ("trials", "invalid", "whether its configuration is not in the space"),
    ("problems", "", "the values that regret is measured by: 0 at best, 1 at median"),
    ("problems", "best", "the best value known without any Creator"),
)


def _m001_initial(connection: DuckDBPyConnection) -> None:
    connection.execute(_TABLES)


def _m002_values(connection: DuckDBPyConnection) -> None:
    """Name columns and origins of proposals as they are named today."""
    connection.execute("ALTER TABLE trials RENAME score TO value")
    for (old,) in connection.execute("SELECT DISTINCT origin FROM trials").fetchall():
        new = str(Origin.parse(old))
        connection.execute("UPDATE trials SET origin = ? WHERE origin = ?", [new, old])
    _rename_creators(connection)
    for table, column, comment in _COMMENTS:
        place = f"COLUMN {table}.{column}" if column else f"TABLE {table}"
        connection.execute(f"COMMENT ON {place} IS '{comment}'")


def _rename_creators(connection: DuckDBPyConnection) -> None:
    """Name Creators as they are named today, also in the keys of units."""
    for row in connection.execute(f"SELECT {_KEY} FROM units").fetchall():
        old = UnitKey(*row)
        new = dataclasses.replace(old, creator=rename_creator(old.creator))
        if new != old:
            connection.execute(
                "UPDATE units SET creator = ?, unit = ? WHERE unit = ?",
                [new.creator, new.unit, old.unit],
            )
            connection.execute("UPDATE trials SET unit = ? WHERE unit = ?", [new.unit, old.unit])


def rename_creator(name: str) -> str:
    """Return today's name of a Creator; `name` may be the one of version 0.1.0."""
    return _RENAMED_CREATORS.get(name, name)


_RENAMED_CREATORS = {
    "hybrid-lessons": "hybrid-meta",
    **{f"centre+{engine}": f"center+{engine}" for engine in ("random", "tpe", "gp", "cmaes")},
}
"""Name in version 0.1.0 -> name today."""


def _m003_trainings(connection: DuckDBPyConnection) -> None:
    """Keep what real trainings took and reported; the paper's protocol compares them."""
    for column, comment in (
        ("training_s", "wall-clock time of the trial; 0 where it was simulated"),
        ("test", "test value that it reported last, where its metric is a validation value"),
    ):
        connection.execute(f"ALTER TABLE trials ADD COLUMN {column} DOUBLE")
        connection.execute(f"COMMENT ON COLUMN trials.{column} IS '{comment}'")
    connection.execute("UPDATE trials SET training_s = 0")


MIGRATIONS = (_m001_initial, _m002_values, _m003_trainings)


@dataclass(frozen=True, slots=True)
class UnitKey:
    """What makes two units the same."""

    problem: str
    problem_digest: str
    creator: str
    creator_digest: str
    seed: int
    budget: int

    @property
    def unit(self) -> str:
        """The key as one word."""
        text = "\n".join(map(str, dataclasses.astuple(self)))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial of a unit."""

    number: int
    state: str
    value: float | None
    config: str
    """JSON."""
    origin: str
    tries: int
    seconds: float
    """That the proposal took."""
    prompt_tokens: int
    completion_tokens: int
    repeated: bool
    """Whether it ran what an earlier trial had run."""
    invalid: bool
    """Whether it was not in the space."""
    note: str
    training_s: float = 0.0
    """Wall-clock time of the trial; 0 where it was simulated."""
    test: float | None = None
    """Test value that it reported last, where its metric is a validation value."""


@dataclass(frozen=True, slots=True)
class UnitRow:
    """One study of a comparison."""

    key: UnitKey
    model_digest: str
    wall_s: float
    trials: tuple[TrialRow, ...]
    version: str = __version__


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """The values by which regret on a problem is measured."""

    problem: str
    problem_digest: str
    direction: str
    best: float
    median: float


class Results:
    """The file of results in a folder. Nothing is made on disk until something is added."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it need not exist."""
        self.folder = folder
        self._database = Database(
            folder / FILE, MIGRATIONS, without_it="what is in it will be measured again"
        )

    def add(self, units: Sequence[UnitRow] = (), problems: Sequence[ProblemRow] = ()) -> None:
        """Add rows, each in place of an earlier one of the same key; all or none.

        While another process has the file, they are written to a file beside it.

        Raises:
            StoreError: nothing can be written.
        """
        if not units and not problems:
            return
        try:
            self._add_unsaved(_UNSAVED_WAIT_S)
            self._write(units, problems, _UNSAVED_WAIT_S)
        except DatabaseBusyError:
            self._write_unsaved(units, problems)

    def _write(
        self, units: Sequence[UnitRow], problems: Sequence[ProblemRow], wait_s: float
    ) -> None:
        names = [row.key.unit for row in units]
        digests = [row.problem_digest for row in problems]
        with self._database.writing(wait_s=wait_s) as connection:
            for table, key, gone in (
                ("units", "unit", names),
                ("trials", "unit", names),
                ("problems", "problem_digest", digests),
            ):
                connection.execute(f"DELETE FROM {table} WHERE {key} IN (SELECT unnest(?))", [gone])
            insert_rows(connection, "units", [_unit_columns(row) for row in units])
            insert_rows(
                connection, "trials", [row for unit in units for row in _trial_columns(unit)]
            )
            insert_rows(connection, "problems", [_problem_columns(row) for row in problems])

    def problems(self, names: Iterable[str]) -> list[ProblemRow]:
        """Return what is known of the problems of these names, the latest of each last.

        Raises:
            StoreError: the file cannot be read.
        """
        rows = self._read(
            "SELECT problem, problem_digest, direction, best, median FROM problems "
            "WHERE problem IN (SELECT unnest(?)) ORDER BY added_at",
            list(names),
        )
        return [ProblemRow(*row) for row in rows]

    def keys(self, problems: Iterable[str]) -> list[UnitKey]:
        """Return the keys of all units on problems of these names, the latest last.

        Raises:
            StoreError: the file cannot be read.
        """
        rows = self._read(
            f"SELECT {_KEY} FROM units WHERE problem IN (SELECT unnest(?)) ORDER BY finished_at",
            list(problems),
        )
        return [UnitKey(*row) for row in rows]

    def units(self, keys: Iterable[UnitKey]) -> list[UnitRow]:
        """Return the units of these keys that there are, in their order.

        Raises:
            StoreError: the file cannot be read.
        """
        wanted = {key.unit: key for key in keys}
        trials: dict[str, list[TrialRow]] = {name: [] for name in wanted}
        columns = ", ".join(field.name for field in dataclasses.fields(TrialRow))
        for unit, *row in self._read(
            f"SELECT unit, {columns} FROM trials WHERE unit IN (SELECT unnest(?)) "
            "ORDER BY unit, number",
            list(wanted),
        ):
            trials[unit].append(TrialRow(*row))
        rows = self._read(
            "SELECT unit, model_digest, wall_s, version FROM units "
            "WHERE unit IN (SELECT unnest(?))",
            list(wanted),
        )
        found = {
            unit: UnitRow(wanted[unit], model, wall_s, tuple(trials[unit]), version)
            for unit, model, wall_s, version in rows
        }
        return [found[unit] for unit in wanted if unit in found]

    def _read(self, query: str, names: list[str]) -> list[tuple[Any, ...]]:
        self._add_unsaved(_WAIT_S)
        with self._database.reading(wait_s=_WAIT_S) as connection:
            return [] if connection is None else connection.execute(query, [names]).fetchall()

    def _write_unsaved(self, units: Sequence[UnitRow], problems: Sequence[ProblemRow]) -> None:
        rows = {
            "units": [dataclasses.asdict(row) for row in units],
            "problems": [dataclasses.asdict(row) for row in problems],
        }
        path = self.folder / f"{_UNSAVED}{uuid.uuid4().hex}.json"
        temporary = path.with_suffix(".new")
        with as_store_errors(path, "write"):
            temporary.write_text(json.dumps(rows), encoding="utf-8")
            temporary.replace(path)

    def _add_unsaved(self, wait_s: float) -> None:
        """Add the rows of `unsaved-*.json`. Two processes may: the second replaces the rows."""
        for path in sorted(self.folder.glob(f"{_UNSAVED}*.json")):
            with contextlib.suppress(FileNotFoundError):
                rows = json.loads(path.read_text(encoding="utf-8"))
                units = [_unit(row) for row in rows["units"]]
                self._write(units, [ProblemRow(**row) for row in rows["problems"]], wait_s)
                path.unlink()


def bench_folder() -> Path:
    """Return where comparisons keep their results: `bench/` in the home of the studies."""
    return default_home() / "bench"


def _unit(row: Mapping[str, Any]) -> UnitRow:
    trials = tuple(_trial(trial) for trial in row["trials"])
    key = UnitKey(**{**row["key"], "creator": rename_creator(row["key"]["creator"])})
    return UnitRow(**{**row, "key": key, "trials": trials})


def _trial(row: Mapping[str, Any]) -> TrialRow:
    fields = dict(row)
    if "score" in fields:  # written by version 0.1.0
        fields["value"] = fields.pop("score")
    return TrialRow(**{**fields, "origin": str(Origin.parse(fields["origin"]))})


def _unit_columns(row: UnitRow) -> dict[str, Any]:
    return {
        "unit": row.key.unit,
        **dataclasses.asdict(row.key),
        "model_digest": row.model_digest,
        "version": row.version,
        "wall_s": row.wall_s,
        "finished_at": _now(),
    }


def _trial_columns(row: UnitRow) -> list[dict[str, Any]]:
    return [{"unit": row.key.unit, **dataclasses.asdict(trial)} for trial in row.trials]


def _problem_columns(row: ProblemRow) -> dict[str, Any]:
    return {**dataclasses.asdict(row), "added_at": _now()}


def _now() -> datetime:
    return datetime.now(UTC)
