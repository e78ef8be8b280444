"""Real storages, written by Optuna here."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from localhpo.errors import InputError, SpaceError
from localhpo.importing import Source, plan, read
from localhpo.space import Categorical, Float, Int

Fill = Callable[..., Path]


def objective(trial: optuna.Trial) -> float:
    kernel = trial.suggest_categorical("kernel", ["rbf", "poly", None])
    cost = trial.suggest_float("C", 1e-3, 1e3, log=True)
    if kernel == "poly":
        trial.suggest_int("degree", 2, 5)
    trial.report(cost / 2, 1)
    if trial.number == 3:
        raise ValueError("too bad")
    if trial.number == 4:
        raise optuna.TrialPruned
    return float(cost)


@pytest.fixture(params=["sqlite", "journal"])
def fill(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fill]:
    """Return a function that writes a study into a storage and returns its file."""
    path = tmp_path / f"past.{request.param}"
    opened: list[RDBStorage] = []

    def storage() -> BaseStorage:
        if request.param == "journal":
            return JournalStorage(JournalFileBackend(str(path)))
        opened.append(RDBStorage(f"sqlite:///{path}"))
        return opened[-1]

    def write(name: str = "svm on wine", directions: tuple[str, ...] = ("maximize",)) -> Path:
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(
            study_name=name, storage=storage(), directions=directions, sampler=sampler
        )
        if len(directions) == 1:
            study.optimize(objective, n_trials=14, catch=(ValueError,))
            study.ask()
        return path

    yield write
    for one in opened:
        one.remove_session()
        one.engine.dispose()


def test_trials_keep_their_states_scores_and_steps(fill: Fill) -> None:
    source = read(str(fill()))
    assert (source.name, source.metric, source.direction) == ("svm on wine", "value", "maximize")
    endings = [row.ending for row in source.rows]
    assert endings == ["complete"] * 3 + ["failed", "pruned"] + ["complete"] * 9
    complete, failed, pruned = source.rows[0], source.rows[3], source.rows[4]
    assert complete.score == complete.values["C"]
    assert failed.score is None
    assert pruned.score == pruned.values["C"] / 2
    assert pruned.steps == ((1, pruned.score),)
    (running,) = source.left
    assert running.where == "trial 14"
    assert "has not ended" in running.reason


def test_the_space_is_that_of_the_storage_with_its_conditions(fill: Fill) -> None:
    space = read(str(fill())).space
    assert space is not None
    assert space["kernel"] == Categorical("kernel", ("rbf", "poly", "None"))
    assert space["C"] == Float("C", 1e-3, 1e3, log=True)
    assert space["degree"] == Int("degree", 2, 5, when={"kernel": ("poly",)})


def test_every_trial_fits_that_space(fill: Fill) -> None:
    source = read(str(fill()))
    planned = plan(source, None)
    assert len(planned.taken) == 14
    assert [left.where for left in planned.left] == ["trial 14"]


def test_reading_changes_nothing(fill: Fill) -> None:
    path = fill()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    read(str(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_of_several_studies_one_must_be_named(fill: Fill) -> None:
    fill("first")
    path = fill("second")
    with pytest.raises(InputError, match=r"'first', 'second'") as caught:
        read(str(path))
    assert "--optuna-study" in caught.value.hint
    assert read(str(path), study="second").name == "second"
    with pytest.raises(InputError, match="no study 'third'"):
        read(str(path), study="third")


def test_several_objectives_are_refused(fill: Fill) -> None:
    path = fill("two", ("minimize", "maximize"))
    with pytest.raises(InputError, match="must have one objective"):
        read(str(path))


def test_ranges_that_changed_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "past.journal"
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))))
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=3)
    study.optimize(lambda trial: trial.suggest_float("x", -1.0, 0.5), n_trials=3)
    source = read(str(path))
    assert source.space is not None
    assert source.space["x"] == Float("x", -1.0, 1.0)
    assert any("its range changed" in note for note in source.notes)


def journal_of(path: Path, objective: Callable[[optuna.Trial], float]) -> Path:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.optimize(objective, n_trials=8, catch=(ValueError,))
    return path


def test_what_has_one_value_is_fixed_where_all_trials_have_it(tmp_path: Path) -> None:
    def with_constants(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        if trial.number == 2:
            raise ValueError("before the rest was asked for")
        trial.suggest_int("trees", 300, 300)
        trial.suggest_categorical("norm", [None])
        if kind == "a":
            trial.suggest_float("drop", 0.5, 0.5)
        return trial.suggest_float("x", 0.0, 1.0)

    source = read(str(journal_of(tmp_path / "past.journal", with_constants)))
    assert source.fixed == {"trees": 300, "norm": "None"}
    assert source.space is not None
    assert set(source.space.names) == {"kind", "drop", "x"}
    planned = plan(source, None)
    assert planned.fixed == source.fixed
    assert len(planned.taken) == 7


def test_constants_alone_are_nothing_to_tune(tmp_path: Path) -> None:
    path = journal_of(tmp_path / "past.journal", lambda trial: trial.suggest_float("x", 1.0, 1.0))
    with pytest.raises(SpaceError, match="at least two values"):
        read(str(path))


def sqlite_source(path: Path) -> Source:
    return read(f"sqlite:///{path}")


def test_a_foreign_sqlite_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    with pytest.raises(InputError, match="none of Optuna's"):
        sqlite_source(path)
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("mine",)]


def optuna_file(path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{path}")
    optuna.create_study(study_name="s", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def test_a_locked_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.db"
    optuna_file(path)
    monkeypatch.setattr("localhpo.importing.optuna.LOCK_WAIT_S", 0.1)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="locked") as caught:
            sqlite_source(path)
    assert "read a copy" in caught.value.hint


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    optuna_file(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(InputError, match="installed Optuna") as caught:
        sqlite_source(path)
    assert "optuna storage upgrade" in caught.value.hint


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "past.journal"
    optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))))
    path.write_text(path.read_text() + "{torn\n{}\n")
    with pytest.raises(InputError, match=r"past\.journal cannot be read"):
        read(str(path))


def test_an_empty_study_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    optuna_file(path)
    with pytest.raises(InputError, match="none of the trials has a hyperparameter"):
        sqlite_source(path)


def test_servers_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="sqlite:///PATH") as caught:
        read("postgresql://host/db")
    assert "copy_study" in caught.value.hint
