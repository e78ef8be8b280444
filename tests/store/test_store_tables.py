"""What a user's own SQL finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields

import duckdb
import pytest

from localhpo.errors import StoreError, StoreVersionError
from localhpo.store import Store, StudyRecord, serialization
from localhpo.store.journal import JournalWriter
from localhpo.store.schema import MIGRATIONS
from localhpo.store.tables import insert_rows
from localhpo.trial import USER, Proposal, State, Trial, Usage

NAME = "water/main"


@pytest.fixture
def sql(store: Store, full_trial: Callable[..., Trial]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a store with two trials, an event and a queued trial of another study."""
    with store.writer(NAME) as writer:
        for trial in (full_trial(0), full_trial(1)):
            writer.write_trial(trial)
            writer.write_measurements(trial.number, trial.measurements)
        writer.write_event("note", "hello", 1, {"k": 1})
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def test_the_overview_has_a_row_per_trial(sql: duckdb.DuckDBPyConnection) -> None:
    rows = sql.execute(
        'SELECT study, trial, state, "values", origin, wall_s, cause FROM overview'
    ).fetchall()
    values = [-0.0, 1e-300]
    assert rows == [(NAME, n, "failed", values, "bo+llm", 1.5, "timeout") for n in (0, 1)]


@pytest.mark.parametrize(
    ("values", "violations"),
    [
        ((), ()),
        ((0.5,), ()),
        ((0.5,), (0.0, -1.0)),
        ((0.5,), (-1.0, 1e-9)),
        ((0.5, 2.0), (-math.inf,)),
        ((0.5, 2.0), (1.0, math.nan)),
        ((), (1.0,)),
    ],
)
def test_the_overview_tells_value_and_feasibility_as_a_trial_does(
    store: Store, values: tuple[float, ...], violations: tuple[float, ...]
) -> None:
    trial = Trial(0, State.COMPLETE, Proposal({}, USER), values=values, violations=violations)
    with store.writer(NAME) as writer:
        writer.write_trial(trial)
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        [(value, score, stored, feasible)] = connection.execute(
            'SELECT value, score, "values", feasible FROM overview'
        ).fetchall()
    assert value == score == (trial.value if len(values) < 2 else None)
    assert tuple(stored) == values
    assert feasible == trial.feasible


def test_a_parameter_is_a_text_and_where_it_is_one_a_number(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    rows = sql.execute("SELECT name, value, number FROM params WHERE trial = 1").fetchall()
    assert rows == [
        ("lr", "0.00031", 3.1e-4),
        ("depth", "7", 7.0),
        ("booster", 'da"rt\n😀', None),
        ("flag", "true", None),
        ("big", str(2**70), float(2**70)),
    ]


def test_the_pivot_that_the_comment_on_params_gives_works(sql: duckdb.DuckDBPyConnection) -> None:
    [(comment,)] = sql.execute(
        "SELECT comment FROM duckdb_views() WHERE view_name = 'params'"
    ).fetchall()
    pivot = comment.partition("as columns: ")[2]
    assert pivot.startswith("PIVOT")
    rows = sql.execute(f"SELECT trial, lr, depth FROM ({pivot}) ORDER BY trial").fetchall()
    assert rows == [(0, 3.1e-4, 7.0), (1, 3.1e-4, 7.0)]


def test_metrics_keep_what_is_not_finite(sql: duckdb.DuckDBPyConnection) -> None:
    rows = sql.execute("SELECT step, name, value FROM metrics WHERE trial = 0").fetchall()
    assert rows[0] == (1, "f1", 0.1 + 0.2)
    assert math.isnan(rows[1][2])
    assert rows[2] == (-2, "süß", -math.inf)


def test_times_are_points_in_time(sql: duckdb.DuckDBPyConnection) -> None:
    [row] = sql.execute(
        "SELECT queued_at::VARCHAR, date_diff('second', started_at, finished_at) FROM trials "
        "WHERE trial = 0"
    ).fetchall()
    assert row == ("2026-09-21 14:13:20.5+00", 8)


def test_structured_columns_are_json(sql: duckdb.DuckDBPyConnection) -> None:
    [row] = sql.execute(
        "SELECT config->>'$.booster', user_attrs->>'$.host', engine_state->>'$.cma[0]', "
        "settings->>'$.metric', evidence, proposals.seed "
        "FROM trials JOIN proposals USING (study, trial) JOIN studies USING (study) "
        "WHERE trial = 0"
    ).fetchall()
    assert row == ('da"rt\n😀', "a", "0.1", "f1", [0, 3], 2**64 - 1)


def test_every_field_of_a_proposal_and_of_usage_has_a_column(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    def columns(table: str) -> set[str]:
        rows = sql.execute(f"DESCRIBE {table}").fetchall()
        return {row[0] for row in rows} - {"study", "trial"}

    assert columns("proposals") == {f.name for f in fields(Proposal)} - {"config"}
    assert columns("resources") == {f.name for f in fields(Usage)}
    flat = {"cause", "message", "stderr_tail", "config"}
    elsewhere = {"number", "proposal", "measurements", "failure", "usage"}
    assert columns("trials") == {f.name for f in fields(Trial)} - elsewhere | flat


def test_tables_say_what_they_hold(sql: duckdb.DuckDBPyConnection) -> None:
    silent = sql.execute(
        "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL "
        "UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL"
    ).fetchall()
    assert silent == []


@pytest.mark.parametrize("later_first", [True, False])
def test_a_trial_stored_before_a_field_existed_and_one_after_are_written_together(
    store: Store, full_trial: Callable[..., Trial], later_first: bool
) -> None:
    """Columns are those of the table, not those of the first row."""
    earlier, later = (1, 0) if later_first else (0, 1)
    with store.writer(NAME) as writer:
        path = store.study_folder(NAME) / "journal.jsonl"
        body = serialization.encode_trial(full_trial(earlier))
        del body["proposal"]["note"], body["usage"]["energy_j"], body["violations"]
        del body["failure"]["stderr_tail"]
        event = {"time": 1.0, "kind": "note", "message": "without trial and data"}
    appending = JournalWriter(path)
    appending.append("trial", body)
    appending.append("event", event)
    appending.close()
    with store.writer(NAME) as writer:
        writer.write_trial(full_trial(later))
        writer.write_event("note", "hello", 1, {"k": 1})
    (store.home / "store.duckdb").unlink()
    store.flush()
    assert store.verify() == []
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        rows = connection.execute(
            "SELECT trial, note, energy_j, violations, stderr_tail "
            "FROM trials JOIN proposals USING (study, trial) JOIN resources USING (study, trial)"
        ).fetchall()
        events = connection.execute("SELECT message, trial, data FROM events").fetchall()
    full = full_trial()
    assert sorted(rows) == sorted([
        (earlier, "", None, [], ""),
        (later, full.proposal.note, 300.0, list(full.violations), "Traceback\n  ..."),
    ])  # fmt: skip
    assert events == [("without trial and data", None, "{}"), ("hello", 1, '{"k":1}')]


def test_rows_with_different_columns_are_refused(store: Store) -> None:
    store.writer(NAME).close()
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        row = {"study": "a", "time": None, "kind": "", "message": "", "data": "{}"}
        with pytest.raises(ValueError, match=r"rows of events differ in .*trial"):
            insert_rows(connection, "events", [row, {**row, "trial": 1}])


# Migrations.


def test_migrations_are_recorded_in_order(sql: duckdb.DuckDBPyConnection) -> None:
    rows = sql.execute("SELECT number, name FROM migrations").fetchall()
    assert rows == [(n, m.__name__) for n, m in enumerate(MIGRATIONS, start=1)]


def test_an_empty_database_made_by_a_shell_is_taken(
    home: Store, record: Callable[..., StudyRecord]
) -> None:
    store = Store(home)
    home.mkdir()
    duckdb.connect(str(home / "store.duckdb")).close()
    assert store.studies() == []
    store.create_study(record())
    store.writer(NAME).close()
    with duckdb.connect(str(home / "store.duckdb")) as connection:
        assert connection.execute("SELECT study FROM studies").fetchall() == [(NAME,)]


def test_a_database_of_a_newer_version_is_refused_and_left_untouched(
    store: Store, record: Callable[..., StudyRecord]
) -> None:
    store.writer(NAME).close()
    database = store.home / "store.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 'm099_new', '7.1.0', now())")
    before = database.read_bytes()
    for act in (
        lambda: store.writer(NAME),
        lambda: store.create_study(record("new/main")),
        store.flush,
        store.verify,
    ):
        with pytest.raises(StoreVersionError, match=r"schema 99, .*7\.1\.0; .* up to 3") as caught:
            act()
        assert "update LocalHPO" in caught.value.hint
    assert database.read_bytes() == before
    assert not store.study_folder("new/main").exists()
    assert not database.with_name("store.duckdb.wal").exists()
    assert store.trials(NAME) == []  # the study itself can be read


def test_a_migration_that_fails_leaves_nothing_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def m004_broken(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("CREATE TABLE half (x INTEGER)")
        connection.execute("SELECT no_such_function()")

    store.writer(NAME).close()
    with monkeypatch.context() as patch:
        patch.setattr("localhpo.store.schema.MIGRATIONS", (*MIGRATIONS, m004_broken))
        with pytest.raises(StoreError, match="no_such_function"):
            store.writer(NAME)
    store.writer(NAME).close()
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        assert ("half",) not in tables


def test_a_trial_without_anything_has_nulls(store: Store) -> None:
    with store.writer(NAME) as writer:
        writer.write_trial(Trial(0, State.QUEUED, Proposal({}, USER), queued_at=1.0))
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        [row] = connection.execute(
            "SELECT cause, started_at, finished_at, model_digest, cpu_s "
            "FROM trials JOIN proposals USING (study, trial) JOIN resources USING (study, trial)"
        ).fetchall()
    assert set(row) == {None}
