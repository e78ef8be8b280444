"""Ask and tell: a study without a script to run."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localhpo.errors import (
    ConfigurationError,
    InputError,
    StudyChangedError,
    StudyLockedError,
    StudyNotFoundError,
)
from localhpo.objective import Objective
from localhpo.space import Float, Int, Space
from localhpo.study import Study
from localhpo.task import Budget, CreatorSettings, Task
from localhpo.trial import Cause, Measurement, State, count_budgeted

MakeTask = Callable[..., Task]


@pytest.fixture
def task(make_task: MakeTask) -> Task:
    return make_task(command=(), creator=CreatorSettings(name="random"))


def test_nothing_is_written_before_the_first_trial(task: Task, home: Path) -> None:
    study = Study.open(task)
    assert study.trials == ()
    assert study.best_trial is None
    assert study.events == ()
    assert not home.exists()


def test_trials_that_are_asked_for_and_told_are_kept(task: Task) -> None:
    with Study.open(task) as study:
        for score in (3.0, 1.0, 2.0):
            trial = study.ask()
            assert trial.state is State.RUNNING
            task.space.validate(trial.config)
            study.tell(trial, score)
    again = Study.open(task)
    assert [trial.value for trial in again.trials] == [3.0, 1.0, 2.0]
    assert again.best_trial is not None
    assert again.best_trial.number == 1
    assert Study.find().trials == again.trials
    assert Study.find("small").task.space == task.space


def test_a_failure_is_told_without_a_value(task: Task) -> None:
    with Study.open(task) as study:
        failed = study.tell(study.ask(), failure="the cluster went down")
        not_finite = study.tell(study.ask(), math.nan)
        pruned = study.tell(
            study.ask(), 0.5, pruned=True, measurements=[Measurement(1, "loss", 0.5, 1.0)]
        )
    assert failed.failure is not None
    assert (failed.state, failed.value, failed.failure.cause) == (State.FAILED, None, Cause.BY_USER)
    assert not_finite.failure is not None
    assert not_finite.failure.cause is Cause.NOT_FINITE
    assert pruned.state is State.PRUNED
    assert Study.open(task).trials[2].measurements == (Measurement(1, "loss", 0.5, 1.0),)


@pytest.mark.parametrize("told", [{}, {"values": 1.0, "failure": "no"}, {"values": "high"}])
def test_what_is_told_must_make_sense(task: Task, told: dict[str, object]) -> None:
    with Study.open(task) as study:
        trial = study.ask()
        with pytest.raises(InputError):
            study.tell(trial, **told)  # type: ignore[arg-type]
        study.tell(trial, 1.0)
        with pytest.raises(InputError, match="must be running"):
            study.tell(trial, 1.0)
        with pytest.raises(InputError, match="must be running"):
            study.tell(17, 1.0)


def test_a_value_of_another_type_is_named(task: Task) -> None:
    odd: Any = [1, 2]
    with Study.open(task) as study:
        number = study.ask().number
        with pytest.raises(InputError, match=r"itself or by its number; got \[1, 2\]"):
            study.tell(odd, 1.0)
        with pytest.raises(InputError, match="the value of loss must be a number"):
            study.tell(number, 10**400)
        with pytest.raises(ConfigurationError, match=r"names to values; got \[1, 2\]"):
            study.enqueue(odd)
        with pytest.raises(ConfigurationError, match=r"names to values; got \[1, 2\]"):
            study.add_trial(odd, 1.0)
        assert study.tell(np.int64(number), 1.0).state is State.COMPLETE


def test_a_trial_that_was_never_told_is_asked_again(task: Task) -> None:
    with Study.open(task) as study:
        lost = study.ask()
    with Study.open(task) as study:
        found = study.ask()
    assert (found.number, found.config) == (lost.number, lost.config)
    assert found.restarts == 1


def test_a_trial_may_be_told_by_another_process_than_asked(task: Task) -> None:
    with Study.open(task) as study:
        asked = study.ask()
    ended = Study.find().tell(asked.number, 1.0)
    assert (ended.state, ended.value, ended.restarts) == (State.COMPLETE, 1.0, 0)


def test_enqueued_configurations_come_first(task: Task) -> None:
    study = Study.open(task)
    study.enqueue({"learning_rate": 0.01, "depth": 3})
    with study:
        first = study.ask()
    assert dict(first.config) == {"learning_rate": 0.01, "depth": 3}
    assert str(first.proposal.origin) == "user"


def test_a_configuration_is_enqueued_once(task: Task) -> None:
    study = Study.open(task)
    study.enqueue({"learning_rate": 0.01, "depth": 3})
    with pytest.raises(ConfigurationError, match=r"must be new; .* is trial 0"):
        study.enqueue({"learning_rate": 0.0100000001, "depth": 3})
    with pytest.raises(ConfigurationError):
        study.enqueue({"learning_rate": 5.0, "depth": 3})
    assert len(study.trials) == 1


def test_added_trials_inform_and_cost_nothing(task: Task) -> None:
    study = Study.open(task)
    study.add_trial({"learning_rate": 0.01, "depth": 3}, 0.25, user_attrs={"from": "last year"})
    study.add_trial({"learning_rate": 0.1, "depth": 3}, failure="diverged")
    good, bad = Study.open(task).trials
    assert (good.value, good.user_attrs) == (0.25, {"from": "last year"})
    assert bad.state is State.FAILED
    assert count_budgeted(study.trials) == 0
    assert study.best_trial == good


def test_user_attributes_are_merged_and_kept(task: Task) -> None:
    with Study.open(task) as study:
        trial = study.ask()
        with pytest.raises(InputError, match="must have ended"):
            study.set_user_attrs(trial, {"a": 1})
        study.tell(trial, 1.0)
        study.set_user_attrs(trial, {"a": 1, "b": [1, "x"]})
        study.set_user_attrs(trial.number, {"a": 2})
    assert Study.open(task).trials[0].user_attrs == {"a": 2, "b": [1, "x"]}


def test_other_settings_are_another_study(task: Task, make_task: MakeTask) -> None:
    with Study.open(task) as study:
        study.tell(study.ask(), 1.0)
    Study.open(dataclasses.replace(task, budget=Budget(trials=99)))  # the budget may grow
    wider = Space([Float("learning_rate", low=1e-4, high=1.0, log=True), Int("depth", 1, 8)])
    for changes, says in (
        ({"space": wider}, "learning_rate"),
        ({"objectives": (Objective("accuracy"),)}, "was 'minimize loss', is 'minimize accuracy'"),
        ({"objectives": (Objective("loss", "maximize"),)}, "is 'maximize loss'"),
        ({"creator": CreatorSettings(name="tpe")}, "creator was 'random', is 'tpe'"),
        ({"seed": 5}, "seed"),
    ):
        changed = dataclasses.replace(task, **changes)  # type: ignore[arg-type]
        with pytest.raises(StudyChangedError, match=says) as caught:
            Study.open(changed)
        assert "--study NEW" in caught.value.hint
        assert Study.open(changed, "new").trials == ()


def test_one_process_writes_and_any_reads(task: Task, home: Path) -> None:
    with Study.open(task) as study:
        trial = study.ask()
        program = f"""
from localhpo.errors import StudyLockedError
from localhpo.study import Study
study = Study.find("small/main", home={str(home)!r})
assert [t.state for t in study.trials] == ["running"]
study.enqueue({{"learning_rate": 0.02, "depth": 5}})  # read by the running process
try:
    study.ask()
except StudyLockedError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert "is being run by process" in done.stdout
        study.tell(trial, 1.0)
    with Study.open(task) as study:
        assert dict(study.ask().config) == {"learning_rate": 0.02, "depth": 5}


# Version 0.1.0 enqueued in `inbox`.
@pytest.mark.parametrize("folder", ["enqueued", "inbox"])
def test_an_enqueued_configuration_outside_the_space_does_no_harm(task: Task, folder: str) -> None:
    study = Study.open(task)
    study.add_trial({"learning_rate": 0.01, "depth": 3}, 0.25)
    enqueued = study.folder / folder
    enqueued.mkdir()
    (enqueued / "1.json").write_text('{"learning_rate": 7, "depth": 3}')
    (enqueued / "2.json").write_text('{"learning_rate": 0.02, "depth": 3}')
    with study:
        assert dict(study.ask().config) == {"learning_rate": 0.02, "depth": 3}
    assert [event.kind for event in study.events] == ["warning"]


def test_two_studies_of_one_process_do_not_both_write(task: Task) -> None:
    with Study.open(task) as study:
        study.ask()
        with pytest.raises(StudyLockedError):
            Study.open(task).ask()


def test_what_is_not_there_is_not_found(task: Task) -> None:
    with pytest.raises(StudyNotFoundError, match="has none"):
        Study.find()
    with pytest.raises(StudyNotFoundError):
        Study.find("small/other")
    for name in ("a", "b"):
        with Study.open(task, name) as study:
            study.ask()
    with pytest.raises(StudyNotFoundError, match="has 2: small/a, small/b"):
        Study.find()
