"""Real storages, written by Optuna here."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from localhpo.errors import InputError, SpaceError
from localhpo.importers import TrialSource, plan_import, read_source
from localhpo.objective import Constraint, Objective
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import Task

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


def test_trials_keep_their_states_values_and_steps(fill: Fill) -> None:
    source = read_source(str(fill()))
    assert (source.name, source.metrics, source.directions) == (
        "svm on wine", ("value",), ("maximize",),
    )  # fmt: skip
    endings = [trial.ending for trial in source.trials]
    assert endings == ["complete"] * 3 + ["failed", "pruned"] + ["complete"] * 9
    complete, failed, pruned = source.trials[0], source.trials[3], source.trials[4]
    assert complete.metrics == {"value": complete.params["C"]}
    assert failed.metrics == {}
    assert pruned.metrics == {"value": pruned.params["C"] / 2}
    assert pruned.steps == ((1, pruned.metrics["value"]),)
    (running,) = source.skipped
    assert running.where == "trial 14"
    assert "has not ended" in running.reason


def test_the_space_is_that_of_the_storage_with_inferred_conditions(fill: Fill) -> None:
    space = read_source(str(fill())).space
    assert space is not None
    assert space["kernel"] == Categorical("kernel", ("rbf", "poly", "None"))
    assert space["C"] == Float("C", 1e-3, 1e3, log=True)
    assert space["degree"] == Int("degree", 2, 5, when={"kernel": ("poly",)})


def test_every_trial_fits_that_space(fill: Fill) -> None:
    source = read_source(str(fill()))
    planned = plan_import(source)
    assert len(planned.accepted) == 14
    assert [row.where for row in planned.skipped] == ["trial 14"]


def test_reading_changes_nothing(fill: Fill) -> None:
    path = fill()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    read_source(str(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_one_of_several_studies_must_be_named(fill: Fill) -> None:
    fill("first")
    path = fill("second")
    with pytest.raises(InputError, match=r"'first', 'second'") as caught:
        read_source(str(path))
    assert "--optuna-study" in caught.value.hint
    assert read_source(str(path), study="second").name == "second"
    with pytest.raises(InputError, match="no study 'third'"):
        read_source(str(path), study="third")


def two_objectives(trial: optuna.Trial) -> tuple[float, float]:
    x = trial.suggest_float("x", 0.0, 1.0)
    if trial.number == 2:
        raise ValueError("too bad")
    return x, 1.0 - x


def distance(trial: optuna.trial.FrozenTrial) -> tuple[float, float]:
    """Two constraints: x <= 0.5 and x >= 0.1, as violations."""
    return (trial.params["x"] - 0.5, 0.1 - trial.params["x"])


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A journal of a study with two objectives and two constraints."""
    path = tmp_path / "several.journal"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the argument is deprecated since Optuna 5
        sampler = optuna.samplers.NSGAIISampler(seed=0, constraints_func=distance)
    study = optuna.create_study(
        study_name="several",
        storage=JournalStorage(JournalFileBackend(str(path))),
        directions=["minimize", "maximize"],
        sampler=sampler,
    )
    study.optimize(two_objectives, n_trials=6, catch=(ValueError,))
    return path


def test_several_objectives_and_constraints_are_read(several: Path) -> None:
    source = read_source(str(several))
    assert source.metrics == ("value_0", "value_1")
    assert source.directions == ("minimize", "maximize")
    assert source.constraints == (
        Constraint("constraint_0", max=0.0), Constraint("constraint_1", max=0.0),
    )  # fmt: skip
    planned = plan_import(source)
    assert planned.objectives == (
        Objective("value_0", "minimize"), Objective("value_1", "maximize"),
    )  # fmt: skip
    assert planned.constraints == source.constraints
    assert [one.source.ending for one in planned.accepted].count("failed") == 1
    for one in planned.accepted:
        x = one.source.params["x"]
        if one.source.ending == "failed":
            assert one.metrics == {}
        else:
            assert one.metrics == pytest.approx(
                {"value_0": x, "value_1": 1 - x, "constraint_0": x - 0.5, "constraint_1": 0.1 - x}
            )


def test_objectives_take_the_names_of_the_study_or_the_given_ones(several: Path) -> None:
    assert read_source(str(several), metrics=["a", "b"]).metrics == ("a", "b")
    with pytest.raises(InputError, match="study 'several' has 2, got a") as caught:
        read_source(str(several), metrics=["a"])
    assert "--metric" in caught.value.hint
    storage = JournalStorage(JournalFileBackend(str(several)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.load_study(study_name="several", storage=storage)
        study.set_metric_names(["loss", "score"])
    source = read_source(str(several))
    assert source.metrics == ("loss", "score")
    assert source.trials[0].metrics["loss"] == source.trials[0].params["x"]


def test_given_names_that_the_study_has_choose_among_its_objectives(several: Path) -> None:
    turned = read_source(str(several), metrics=["value_1", "value_0"])
    assert turned.metrics == ("value_1", "value_0")
    assert turned.directions == ("maximize", "minimize")
    assert turned.trials == read_source(str(several)).trials
    planned = plan_import(turned)
    x = planned.accepted[0].source.params["x"]
    assert planned.accepted[0].metrics["value_0"] == x
    planned = plan_import(read_source(str(several), metrics=["value_1"]))
    assert planned.objectives == (Objective("value_1", "maximize"),)
    assert planned.accepted[0].metrics["value_1"] == 1 - x


def test_two_objectives_of_one_name_are_refused(several: Path) -> None:
    with pytest.raises(InputError, match="a name of its own; got loss twice"):
        plan_import(read_source(str(several), metrics=["loss", "loss"]))


def test_notes_compare_directions_by_name(several: Path, make_task: Callable[..., Task]) -> None:
    task = make_task(
        space=Space([Float("x", 0.0, 1.0)]),
        objectives=(Objective("value_1", "maximize"), Objective("value_0", "minimize")),
    )
    notes = plan_import(read_source(str(several), task=task), task).notes
    assert not [note for note in notes if "in the study" in note]


def test_objectives_and_constraints_of_a_task_are_matched_by_order(
    several: Path, make_task: Callable[..., Task]
) -> None:
    task = make_task(
        space=Space([Float("x", 0.0, 1.0)]),
        objectives=(Objective("cost", "minimize"), Objective("gain", "minimize")),
        constraints=(Constraint("size", max=9.0), Constraint("speed", min=3.0)),
    )
    planned = plan_import(read_source(str(several), task=task), task)
    assert planned.objectives == task.objectives
    assert "value_1 is to maximize in the file, and gain to minimize in the study" in planned.notes
    one = planned.accepted[0]
    x = one.source.params["x"]
    assert one.metrics["cost"] == x
    violations = [c.violation(one.metrics[c.name]) for c in task.constraints]
    assert violations == pytest.approx([x - 0.5, 0.1 - x])
    single = dataclasses.replace(task, objectives=task.objectives[:1])
    with pytest.raises(InputError, match=r"the task has 1 objectives \(cost\)"):
        plan_import(read_source(str(several)), single)
    free = dataclasses.replace(task, constraints=())
    notes = plan_import(read_source(str(several)), free).notes
    assert "the file has constraints and the task has none: they are ignored" in notes


def test_a_complete_trial_without_its_constraint_is_skipped(
    several: Path, make_task: Callable[..., Task]
) -> None:
    storage = JournalStorage(JournalFileBackend(str(several)))
    study = optuna.load_study(study_name="several", storage=storage)
    study.add_trial(
        optuna.trial.create_trial(
            values=[0.0, 0.0],
            params={"x": 0.25},
            distributions={"x": optuna.distributions.FloatDistribution(0.0, 1.0)},
        )
    )
    (row,) = plan_import(read_source(str(several))).skipped
    assert (row.where, row.reason) == (
        "trial 6", "it has no value of constraint_0, which is constrained",
    )  # fmt: skip


def test_the_union_of_changed_ranges_is_used(tmp_path: Path) -> None:
    path = tmp_path / "past.journal"
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))))
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=3)
    study.optimize(lambda trial: trial.suggest_float("x", -1.0, 0.5), n_trials=3)
    source = read_source(str(path))
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


def test_a_constant_of_all_trials_is_fixed(tmp_path: Path) -> None:
    def with_constants(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        if trial.number == 2:
            raise ValueError("before the rest was asked for")
        trial.suggest_int("trees", 300, 300)
        trial.suggest_categorical("norm", [None])
        if kind == "a":
            trial.suggest_float("drop", 0.5, 0.5)
        return trial.suggest_float("x", 0.0, 1.0)

    source = read_source(str(journal_of(tmp_path / "past.journal", with_constants)))
    assert source.fixed == {"trees": 300, "norm": "None"}
    assert source.space is not None
    assert set(source.space.names) == {"kind", "drop", "x"}
    planned = plan_import(source)
    assert planned.fixed == source.fixed
    assert len(planned.accepted) == 7


def test_constants_only_are_an_error(tmp_path: Path) -> None:
    path = journal_of(tmp_path / "past.journal", lambda trial: trial.suggest_float("x", 1.0, 1.0))
    with pytest.raises(SpaceError, match="at least two values"):
        read_source(str(path))


def sqlite_source(path: Path) -> TrialSource:
    return read_source(f"sqlite:///{path}")


def test_another_sqlite_file_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    with pytest.raises(InputError, match="not a storage of Optuna"):
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
    monkeypatch.setattr("localhpo.importers.optuna.LOCK_WAIT_S", 0.1)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="locked") as caught:
            sqlite_source(path)
    assert "import a copy" in caught.value.hint


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
        read_source(str(path))


def test_an_empty_study_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    optuna_file(path)
    with pytest.raises(InputError, match="none of the trials has a hyperparameter"):
        sqlite_source(path)


def test_the_url_of_a_server_is_refused() -> None:
    with pytest.raises(InputError, match="sqlite:///PATH") as caught:
        read_source("postgresql://host/db")
    assert "copy_study" in caught.value.hint
