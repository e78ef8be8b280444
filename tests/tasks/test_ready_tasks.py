"""The ready tasks, run as any task is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localhpo import tasks
from localhpo.errors import TaskError
from localhpo.executor import check_command
from localhpo.space import Float, Int
from localhpo.task import Task, load_task
from localhpo.trial import Cause, State

NAME = "breast-cancer-xgboost"
QUICK = {
    "max_depth": 3,
    "learning_rate": 0.3,
    "min_child_weight": 1,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "n_estimators": 110,
    "gamma": 0.0,
    "reg_alpha": 0.0,
    "reg_lambda": 1.0,
    "scale_pos_weight": 1.0,
}


@pytest.fixture
def breast_cancer() -> Task:
    return load_task(tasks.find(NAME))


def test_ready_tasks_are_found_by_name() -> None:
    assert NAME in tasks.available()
    for name in tasks.available():
        task = load_task(tasks.find(name))
        assert task.name == name
        assert task.background
        check_command(task.command, task.names)
        assert (task.folder / "train.py").is_file()


def test_an_unknown_task_is_told_with_what_was_meant() -> None:
    with pytest.raises(TaskError, match="no ready task called 'breast-cancer'") as caught:
        tasks.find("breast-cancer")
    assert caught.value.hint == "did you mean 'breast-cancer-xgboost'?"
    with pytest.raises(TaskError, match="there is breast-cancer-xgboost"):
        tasks.find("zzz")


def test_the_space_is_that_of_the_agenthpo_paper(breast_cancer: Task) -> None:
    kinds = {Int: "int", Float: "float"}
    told = [(p.name, kinds[type(p)], p.low, p.high, p.log) for p in breast_cancer.space]  # type: ignore[index, union-attr]
    assert told == [
        ("max_depth", "int", 3, 11, False),
        ("learning_rate", "float", 1e-3, 1.0, True),
        ("min_child_weight", "int", 1, 10, False),
        ("subsample", "float", 0.5, 1.0, False),
        ("colsample_bytree", "float", 0.5, 1.0, False),
        ("n_estimators", "int", 100, 500, False),
        ("gamma", "float", 0.0, 0.5, False),
        ("reg_alpha", "float", 0.0, 1.0, False),
        ("reg_lambda", "float", 0.0, 1.0, False),
        ("scale_pos_weight", "float", 1.0, 10.0, False),
    ]
    assert all(parameter.help for parameter in breast_cancer.space)
    assert not breast_cancer.space.has_defaults


def test_a_trial_reports_a_curve_and_can_be_repeated(run_task: Callable, tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    pytest.importorskip("sklearn")
    outcome, reported = run_task(NAME, tmp_path, **QUICK)
    assert outcome.state is State.COMPLETE, outcome
    assert outcome.value is not None
    assert 0.9 < outcome.value < 1.0
    curve = [m.step for m in reported if m.name == "val_f1"]
    assert curve == [25, 50, 75, 100, 110]
    assert {m.name for m in reported} == {"val_f1", "val_logloss", "train_logloss"}
    again, _ = run_task(NAME, tmp_path, trial=1, **QUICK)
    assert again.value == outcome.value


def test_trials_differ(run_task: Callable, tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    pytest.importorskip("sklearn")
    slow, _ = run_task(NAME, tmp_path, **{**QUICK, "learning_rate": 0.001})
    fast, _ = run_task(NAME, tmp_path, trial=1, **QUICK)
    assert slow.value is not None
    assert fast.value is not None
    assert slow.value < fast.value


def test_a_missing_library_is_told_with_the_command(run_task: Callable, tmp_path: Path) -> None:
    (tmp_path / "xgboost.py").write_text("raise ImportError('No module named xgboost')\n")
    outcome, _ = run_task(NAME, tmp_path, path=tmp_path, **QUICK)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.EXIT_CODE
    assert "pip install 'localhpo[local]'" in outcome.failure.message
