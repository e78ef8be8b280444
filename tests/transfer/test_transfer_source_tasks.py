"""Source tasks in a file: what is written is read, and what cannot be read says so."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localhpo.errors import InputError
from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import Task
from localhpo.transfer.source_tasks import SourceTask, read_source_tasks, write_source_tasks

SPACE = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Categorical("booster", ("tree", "dart")),
        Int("drops", 1, 9, when={"booster": ("dart",)}),
    ]
)


@pytest.fixture
def source_tasks(make_task: Callable[..., Task]) -> list[SourceTask]:
    """Two source tasks of one design, and one of another."""
    rng = np.random.default_rng(0)
    designs = [tuple(SPACE.sample(rng) for _ in range(8)) for _ in range(2)]

    def source_task(metric: str, design: int) -> SourceTask:
        objective = Objective(metric, "maximize")
        task = make_task(space=SPACE, objectives=(objective,), background="Trees.")
        regrets = tuple(tuple(map(float, row)) for row in rng.uniform(0.0, 1.5, (3, 8)).round(2))
        return SourceTask(task, designs[design], ("a", "b", "c"), regrets, (0.5, 2.25, 1.0), 0.125)

    return [source_task("auc", 0), source_task("accuracy", 0), source_task("auc", 1)]


def test_written_source_tasks_are_read_back(source_tasks: list[SourceTask], tmp_path: Path) -> None:
    write_source_tasks(tmp_path / "source_tasks.json.gz", source_tasks)
    again = read_source_tasks(tmp_path / "source_tasks.json.gz")
    assert len(again) == 3
    for before, after in zip(source_tasks, again, strict=True):
        assert after.task.space == SPACE
        assert after.task.name == before.task.name
        assert after.task.objectives == before.task.objectives
        assert after.task.background == before.task.background
        assert after.configs == before.configs
        assert after.data_sets == before.data_sets
        assert (after.lengths, after.noise) == (before.lengths, before.noise)
        assert np.array(after.regrets) == pytest.approx(np.array(before.regrets))


def test_only_wanted_source_tasks_are_returned(
    source_tasks: list[SourceTask], tmp_path: Path
) -> None:
    write_source_tasks(tmp_path / "source_tasks.json.gz", source_tasks)
    some = read_source_tasks(
        tmp_path / "source_tasks.json.gz", lambda task: task.metric == "accuracy"
    )
    assert [source.task.metric for source in some] == ["accuracy"]


def test_writing_twice_gives_identical_files(
    source_tasks: list[SourceTask], tmp_path: Path
) -> None:
    for name in ("one", "other"):
        write_source_tasks(tmp_path / name, source_tasks)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"{"), "cannot be read"),
        (gzip.compress(b'{"format": 2}'), "cannot be read"),
        (gzip.compress(b'{"format": 1}'), "format 1, and this version reads 2"),
    ],
)
def test_an_unreadable_file_is_named_in_the_error(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "source_tasks.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        read_source_tasks(path)
    assert str(path) in str(error.value)
