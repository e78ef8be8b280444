"""What a study learns from the others of its store: a real store, real studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import StudyChangedError, StudyLockedError
from localhpo.store import Store
from localhpo.study import Study
from localhpo.study.past_studies import open_with_past_studies, read_past_studies, set_private
from localhpo.task import CreatorSettings, Task, parse_task, to_table
from localhpo.trial import Proposal

MakeTask = Callable[..., Task]

RETRIEVE = CreatorSettings(name="hybrid", backend="scripted", transfer="retrieve")


@pytest.fixture
def old(make_task: MakeTask, home: Path) -> Study:
    """A study of another task with the same space, which has ended."""
    study = Study.open(make_task(name="old"), home=home)
    for depth in range(1, 9):
        study.add_trial({"learning_rate": 1e-2, "depth": depth}, float((depth - 7) ** 2))
    return study


def first(task: Task, home: Path, name: str = "main") -> Proposal:
    """Return the first proposal of a study, by the optimizer alone."""
    store, key = Store(home), f"{task.name}/{name}"
    from localhpo.creator import History

    hybrid = open_with_past_studies(store, key, task)
    try:
        return hybrid.propose(History(task, (), 0, 0), 1)[0]
    finally:
        hybrid.close()


@pytest.fixture
def task(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A new task, whose Creator finds no model and says so."""
    from localhpo.errors import MissingExtraError

    def none(*_: object, **__: object) -> None:
        raise MissingExtraError("torch", "the built-in model", "local")

    monkeypatch.setattr("localhpo.creator.registry.open_backend", none)
    # One that is named and missing would be an error.
    return make_task(name="new", creator=dataclasses.replace(RETRIEVE, backend="transformers"))


def test_the_best_of_another_study_comes_first(task: Task, old: Study, home: Path) -> None:
    proposal = first(task, home)
    assert str(proposal.origin) == "transfer"
    assert proposal.config == {"learning_rate": 1e-2, "depth": 7}
    assert f"of {old.key}" in proposal.rationale


def test_off_is_off(task: Task, old: Study, home: Path) -> None:
    off = dataclasses.replace(task, creator=dataclasses.replace(task.creator, transfer="off"))
    assert old.trials
    assert str(first(off, home).origin) == "default"


def test_a_private_study_is_not_retrieved(task: Task, old: Study, home: Path) -> None:
    set_private(Store(home), old.key, True)
    assert str(first(task, home).origin) == "default"
    set_private(Store(home), old.key, False)
    assert str(first(task, home).origin) == "transfer"
    kinds = [event.kind for event in old.events]
    assert kinds.count("privacy") == 2


def test_a_task_may_be_private_from_the_start(make_task: MakeTask, home: Path) -> None:
    task = make_task(name="secret", private=True)
    assert parse_task(to_table(task), folder=task.folder).private
    Study.open(task, home=home).add_trial({"learning_rate": 1e-2, "depth": 2}, 1.0)
    (past,), _ = read_past_studies(Store(home))
    assert past.private


def test_a_study_in_use_cannot_be_marked(old: Study, home: Path) -> None:
    with Store(home).writer(old.key), pytest.raises(StudyLockedError):
        set_private(Store(home), old.key, True)


def test_a_study_retrieves_neither_itself_nor_later_studies(
    task: Task, old: Study, home: Path, make_task: MakeTask
) -> None:
    study = Study.open(task, home=home)
    study.add_trial({"learning_rate": 1e-3, "depth": 1}, 1.0)
    later = Study.open(make_task(name="later"), home=home)
    later.add_trial({"learning_rate": 1e-2, "depth": 3}, 1.0)
    old.add_trial({"learning_rate": 1e-3, "depth": 4}, 0.0)
    created = Store(home).study(study.key).created_at
    (past,), unreadable = read_past_studies(Store(home), other_than=study.key, before=created)
    assert (past.study, len(past.trials), unreadable) == (old.key, 8, [])


def test_the_record_of_past_studies_is_what_was_known_at_the_start(
    task: Task, old: Study, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def opened(_: Task, **more: Any) -> None:
        given.append(more["retrieved"])

    monkeypatch.setattr("localhpo.study.past_studies.open_creator", opened)
    study = Study.open(task, home=home)
    study.add_trial({"learning_rate": 1e-3, "depth": 1}, 1.0)
    for depth in (2, 4):  # a resumed study takes the turns that it took, whatever came since
        open_with_past_studies(Store(home), study.key, task)
        old.add_trial({"learning_rate": 1e-3, "depth": depth}, 0.0)
    first, second = given
    assert first == second
    assert {one.study for one in first} == {old.key}
    assert all(one.trial < 8 for one in first), "the later ones are the best"


def test_a_study_that_cannot_be_read_is_named_and_costs_no_other(
    task: Task, old: Study, home: Path, make_task: MakeTask
) -> None:
    broken = Study.open(make_task(name="broken"), home=home)
    broken.add_trial({"learning_rate": 1e-3, "depth": 1}, 1.0)
    journal = broken.folder / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"trial"', '"trail"') + "{}\n{}\n")
    past_studies, unreadable = read_past_studies(Store(home))
    assert [past.study for past in past_studies] == [old.key]
    assert [one.study for one in unreadable] == [broken.key]
    assert str(first(task, home).origin) == "transfer"


def test_transfer_is_one_of_the_settings_that_hold_for_a_study(task: Task, home: Path) -> None:
    Study.open(task, home=home).add_trial({"learning_rate": 1e-3, "depth": 1}, 1.0)
    off = dataclasses.replace(task, creator=dataclasses.replace(task.creator, transfer="off"))
    with pytest.raises(StudyChangedError, match="transfer was 'retrieve', is 'off'"):
        Study.open(off, home=home)
