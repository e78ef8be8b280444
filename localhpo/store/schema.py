"""The tables of `store.duckdb`, as migrations in order.

Each migration runs in one transaction together with its record in `migrations`; a database
whose last record is not known here was written by a newer LocalHPO and is left untouched.
Migrations are never changed once released: what is wrong in one is mended in the next.

No table has a key: rows are written as "delete, then insert" under an exclusive lock on the
file, `Store.verify` would find one that is there twice, and an index would cost every flush.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from localhpo.errors import StoreVersionError
from localhpo.trial import Origin

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


_M001_TABLES = """
CREATE TABLE studies (
    study VARCHAR NOT NULL, task VARCHAR NOT NULL, created_at TIMESTAMPTZ NOT NULL,
    version VARCHAR NOT NULL, settings JSON NOT NULL,
    spool_id VARCHAR NOT NULL, spool_bytes BIGINT NOT NULL
);
COMMENT ON TABLE studies IS 'one row per study; settings may not change while it lasts';
COMMENT ON COLUMN studies.version IS 'of LocalHPO, when the study was created';
COMMENT ON COLUMN studies.spool_bytes IS 'how much of its spool is in these tables';

CREATE TABLE trials (
    study VARCHAR NOT NULL, trial INTEGER NOT NULL, state VARCHAR NOT NULL,
    score DOUBLE, config JSON NOT NULL,
    cause VARCHAR, message VARCHAR, stderr_tail VARCHAR, summary VARCHAR NOT NULL,
    seed HUGEINT NOT NULL, restarts INTEGER NOT NULL, user_attrs JSON NOT NULL,
    queued_at TIMESTAMPTZ, started_at TIMESTAMPTZ, finished_at TIMESTAMPTZ
);
COMMENT ON TABLE trials IS 'one row per trial; a trial that failed has no score';
COMMENT ON COLUMN trials.cause IS 'why it failed';
COMMENT ON COLUMN trials.seed IS 'given to the script';

CREATE TABLE proposals (
    study VARCHAR NOT NULL, trial INTEGER NOT NULL, origin VARCHAR NOT NULL,
    rationale VARCHAR NOT NULL, rationale_by VARCHAR NOT NULL, evidence INTEGER[] NOT NULL,
    tries INTEGER NOT NULL, seed HUGEINT, model_digest VARCHAR,
    prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL,
    seconds DOUBLE NOT NULL, prompt VARCHAR, prompt_sha256 VARCHAR, answer VARCHAR,
    engine_state JSON NOT NULL, note VARCHAR NOT NULL
);
COMMENT ON TABLE proposals IS 'where each trial came from, why, and what that cost';
COMMENT ON COLUMN proposals.tries IS 'configurations drawn until this one was new';
COMMENT ON COLUMN proposals.seed IS 'of the model or the engine, for this proposal';
COMMENT ON COLUMN proposals.answer IS 'the raw completion of the model';

CREATE TABLE resources (
    study VARCHAR NOT NULL, trial INTEGER NOT NULL, wall_s DOUBLE NOT NULL, cpu_s DOUBLE,
    peak_memory_mb DOUBLE, peak_gpu_memory_mb DOUBLE
);
COMMENT ON TABLE resources IS 'what each trial used';

CREATE TABLE metrics (
    study VARCHAR NOT NULL, trial INTEGER NOT NULL, step BIGINT NOT NULL,
    name VARCHAR NOT NULL, value DOUBLE NOT NULL, time TIMESTAMPTZ
);
COMMENT ON TABLE metrics IS 'what scripts reported, in the order of report';

CREATE TABLE events (
    study VARCHAR NOT NULL, time TIMESTAMPTZ, kind VARCHAR NOT NULL,
    message VARCHAR NOT NULL, trial INTEGER, data JSON NOT NULL
);
COMMENT ON TABLE events IS 'what happened in a study, in order';
"""

_M001_VIEWS = """
CREATE VIEW params AS
    SELECT
        study, trial, name, value ->> '$' AS value,
        CASE WHEN json_type(value) NOT IN ('VARCHAR', 'BOOLEAN')
            THEN TRY_CAST(value AS DOUBLE) END AS number
    FROM (
        SELECT
            study, trial, unnest(json_keys(config)) AS name,
            unnest(json_extract(config, '$.*')) AS value
        FROM trials
    );
COMMENT ON VIEW params IS 'one row per active hyperparameter of a trial; as columns: '
    'PIVOT (SELECT study, trial, name, number FROM params) ON name USING first(number)';
COMMENT ON COLUMN params.number IS 'the value, where it is a number';

CREATE VIEW overview AS
    SELECT study, trial, state, score, origin, wall_s, cause, config
    FROM trials JOIN proposals USING (study, trial) JOIN resources USING (study, trial)
    ORDER BY study, trial;
COMMENT ON VIEW overview IS 'one row per trial: start here';
"""


def m001_initial(connection: DuckDBPyConnection) -> None:
    """Make all tables."""
    connection.execute(_M001_TABLES)
    connection.execute(_M001_VIEWS)


def m002_devices(connection: DuckDBPyConnection) -> None:
    """Add columns for the use of devices, which was not measured before."""
    for column, comment in (
        ("gpu_s", "wall clock times the GPUs held"),
        ("gpu_utilisation", "mean, 0 to 1"),
        ("energy_j", "of its devices; shared ones in equal parts"),
    ):
        connection.execute(f"ALTER TABLE resources ADD COLUMN {column} DOUBLE")
        connection.execute(f"COMMENT ON COLUMN resources.{column} IS '{comment}'")


_M003_TABLES = """
DROP VIEW overview;
DROP VIEW params;
ALTER TABLE trials ALTER score TYPE DOUBLE[]
    USING CASE WHEN score IS NULL THEN []::DOUBLE[] ELSE [score] END;
ALTER TABLE trials RENAME score TO "values";
ALTER TABLE trials ADD COLUMN violations DOUBLE[] DEFAULT [];
ALTER TABLE proposals ADD COLUMN details JSON DEFAULT '{}';
ALTER TABLE studies RENAME spool_id TO journal_id;
ALTER TABLE studies RENAME spool_bytes TO journal_bytes;
ALTER TABLE resources RENAME gpu_utilisation TO gpu_utilization;

COMMENT ON COLUMN studies.version IS 'version of LocalHPO that created the study';
COMMENT ON COLUMN studies.journal_id IS 'which journal.jsonl these rows were read from';
COMMENT ON COLUMN studies.journal_bytes IS 'how many bytes of journal.jsonl these rows cover';
COMMENT ON TABLE trials IS 'one row per trial; a trial that failed has no values';
COMMENT ON COLUMN trials."values" IS 'one per objective, in order; empty where there are none';
COMMENT ON COLUMN trials.violations IS
    'one per constraint, in the units of its metric; 0 or below: it holds; NaN: unknown';
COMMENT ON COLUMN trials.cause IS 'why the trial failed';
COMMENT ON COLUMN trials.seed IS 'random seed given to the training script';
COMMENT ON COLUMN trials.restarts IS 'how often the trial was interrupted and run again';
COMMENT ON TABLE proposals IS 'where the configuration of each trial comes from, and its cost';
COMMENT ON COLUMN proposals.origin IS
    'the optimizer, then what it relied on: bo+llm, tpe, default, user, external, ...';
COMMENT ON COLUMN proposals.details IS 'numbers behind the rationale, by name';
COMMENT ON COLUMN proposals.tries IS
    'configurations drawn until one was valid and had not been tried';
COMMENT ON COLUMN proposals.seed IS 'random seed of the model or optimizer for this proposal';
COMMENT ON COLUMN proposals.seconds IS 'time that the proposal took';
COMMENT ON COLUMN proposals.answer IS 'full text that the language model generated';
COMMENT ON TABLE resources IS 'time, memory and energy that each trial used';
COMMENT ON COLUMN resources.gpu_s IS 'wall-clock seconds times the GPUs held';
COMMENT ON COLUMN resources.gpu_utilization IS 'mean utilization of its GPUs, 0 to 1';
COMMENT ON COLUMN resources.energy_j IS 'joules; the energy of a shared GPU is split equally';
COMMENT ON TABLE metrics IS 'every value that a training script reported, in order';
COMMENT ON TABLE events IS 'what happened in each study, in order';
"""

_M003_VIEWS = """
CREATE VIEW overview AS
    SELECT
        study, trial, state,
        CASE WHEN len("values") = 1 THEN "values"[1] END AS value,
        "values",
        CASE WHEN len("values") > 0 AND NOT coalesce(isnan(list_max(violations)), false)
            THEN coalesce(list_max(violations) <= 0, true) END AS feasible,
        value AS score, origin, wall_s, cause, config
    FROM trials JOIN proposals USING (study, trial) JOIN resources USING (study, trial)
    ORDER BY study, trial;
COMMENT ON VIEW overview IS 'one row per trial: start here';
COMMENT ON COLUMN overview.value IS 'the value of the one objective; NULL where there are several';
COMMENT ON COLUMN overview.feasible IS 'whether every constraint holds; NULL where unknown';
COMMENT ON COLUMN overview.score IS 'old name of "value"';
"""


def m003_values(connection: DuckDBPyConnection) -> None:
    """Store a value per objective, violations of constraints, and the new names of columns.

    Origins of proposals get their present spelling.
    """
    connection.execute(_M003_TABLES)
    connection.execute(_M001_VIEWS.partition("CREATE VIEW overview")[0])
    connection.execute(_M003_VIEWS)
    origins = connection.execute("SELECT DISTINCT origin FROM proposals").fetchall()
    for (old,) in origins:
        new = str(Origin.parse(old))
        if new != old:
            connection.execute("UPDATE proposals SET origin = ? WHERE origin = ?", [new, old])


Migrations = Sequence["Callable[[DuckDBPyConnection], None]"]

MIGRATIONS: Migrations = (m001_initial, m002_devices, m003_values)
"""In order; the number of a migration is its place, from 1."""


def version_of(connection: DuckDBPyConnection, migrations: Migrations) -> int:
    """Return the number of the last migration; 0 for an empty database.

    Raises:
        StoreVersionError: a newer LocalHPO has written it.
    """
    [(exists,)] = connection.execute(
        "SELECT count(*) FROM duckdb_tables() "
        "WHERE database_name = current_database() AND table_name = 'migrations'"
    ).fetchall()
    if not exists:
        return 0
    [(number, written_by)] = connection.execute(
        "SELECT max(number), arg_max(version, number) FROM migrations"
    ).fetchall()
    if number > len(migrations):
        [(path,)] = connection.execute(
            "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
        ).fetchall()
        raise StoreVersionError(
            f"{path} has schema {number}, written by LocalHPO {written_by}; "
            f"this LocalHPO knows schemas up to {len(migrations)}"
        )
    return int(number)


def migrate(connection: DuckDBPyConnection, version: str, migrations: Migrations) -> None:
    """Bring the database up to the last migration; `version` is LocalHPO's own.

    Raises:
        StoreVersionError: a newer LocalHPO has written it.
    """
    done = version_of(connection, migrations)
    for number, migration in enumerate(migrations[done:], start=done + 1):
        connection.execute("BEGIN")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations "
            "(number INTEGER NOT NULL, name VARCHAR NOT NULL, version VARCHAR NOT NULL, "
            "applied_at TIMESTAMPTZ NOT NULL); "
            "COMMENT ON TABLE migrations IS 'how these tables came to be; kept by LocalHPO'"
        )
        migration(connection)
        connection.execute(
            "INSERT INTO migrations VALUES (?, ?, ?, now())",
            [number, migration.__name__, version],
        )
        connection.execute("COMMIT")
