"""What a user's own SQL finds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import fields

import duckdb
import pytest

from localhpo.errors import StoreError, StoreVersionError
from localhpo.store import Store, StudyRecord
from localhpo.store.schema import MIGRATIONS
from localhpo.trial import Proposal, State, Trial, Usage

NAME = "water/main"


@pytest.fixture
def sql(store: Store, full_trial: Callable[..., Trial]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a store with two trials, an event and a queued trial of another study."""
    with store.writer(NAME) as writer:
        for trial in (full_trial(0), full_trial(1)):
            writer.trial(trial)
            writer.measurements(trial.number, trial.measurements)
        writer.event("note", "hello", 1, {"k": 1})
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def test_the_overview_has_a_row_per_trial(sql: duckdb.DuckDBPyConnection) -> None:
    rows = sql.execute(
        "SELECT study, trial, state, score, origin, wall_s, cause FROM overview"
    ).fetchall()
    assert rows == [(NAME, n, "failed", -0.0, "model", 1.5, "timeout") for n in (0, 1)]


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
        store.rebuild,
        store.verify,
    ):
        with pytest.raises(StoreVersionError, match=r"schema 99, .*7\.1\.0; .* up to 2") as caught:
            act()
        assert "update LocalHPO" in caught.value.hint
    assert database.read_bytes() == before
    assert not store.study_folder("new/main").exists()
    assert not database.with_name("store.duckdb.wal").exists()
    assert store.trials(NAME) == []  # the study itself can be read


def test_a_migration_that_fails_leaves_nothing_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def m002_broken(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("CREATE TABLE half (x INTEGER)")
        connection.execute("SELECT no_such_function()")

    store.writer(NAME).close()
    with monkeypatch.context() as patch:
        patch.setattr("localhpo.store.schema.MIGRATIONS", (*MIGRATIONS, m002_broken))
        with pytest.raises(StoreError, match="no_such_function"):
            store.writer(NAME)
    store.writer(NAME).close()
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        assert ("half",) not in tables


def test_a_trial_without_anything_has_nulls(store: Store) -> None:
    with store.writer(NAME) as writer:
        writer.trial(Trial(0, State.QUEUED, Proposal({}, "user"), queued_at=1.0))
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        [row] = connection.execute(
            "SELECT score, cause, started_at, finished_at, model_digest, cpu_s "
            "FROM trials JOIN proposals USING (study, trial) JOIN resources USING (study, trial)"
        ).fetchall()
    assert set(row) == {None}


def test_a_store_of_the_first_schema_opens_and_goes_on(
    store: Store, full_trial: Callable[..., Trial]
) -> None:
    """Made as the first version made it: fewer columns, and fewer fields in the spool."""
    new = ("gpu_s", "gpu_utilization", "energy_j")
    with store.writer(NAME) as writer:
        writer.trial(full_trial(0))
    spool = store.study_folder(NAME) / "spool.jsonl"
    text = spool.read_text()
    for name in new:
        text = re.sub(rf',"{name}":[0-9.]+', "", text)
    assert text != spool.read_text()
    spool.write_text(text)
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        for name in new:
            connection.execute(f"ALTER TABLE resources DROP COLUMN {name}")
        connection.execute("DELETE FROM migrations WHERE number > 1")
        connection.execute("UPDATE studies SET spool_bytes = ?", [len(text.encode())])
    (old,) = Store(store.home).trials(NAME)
    assert (old.usage.peak_memory_mb, old.usage.gpu_s) == (512.5, None)
    with Store(store.home).writer(NAME) as writer:
        writer.trial(full_trial(1))
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        rows = connection.execute("SELECT trial, gpu_s, energy_j FROM resources").fetchall()
    assert sorted(rows) == [(0, None, None), (1, 0.75, 300.0)]
    assert store.verify() == []
    store.rebuild()
    assert store.verify() == []
    assert [trial.usage.gpu_s for trial in store.trials(NAME)] == [None, 0.75]
