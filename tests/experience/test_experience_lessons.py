"""Lessons in a file: what is written is read, and what cannot be read says so."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localhpo.errors import InputError
from localhpo.experience import lessons
from localhpo.experience.lessons import Lesson
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import Task

SPACE = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Categorical("booster", ("tree", "dart")),
        Int("drops", 1, 9, when={"booster": ("dart",)}),
    ]
)


@pytest.fixture
def taught(make_task: Callable[..., Task]) -> list[Lesson]:
    """Two lessons of one design, and one of another."""
    rng = np.random.default_rng(0)
    designs = [tuple(SPACE.sample(rng) for _ in range(8)) for _ in range(2)]

    def lesson(metric: str, design: int) -> Lesson:
        task = make_task(space=SPACE, metric=metric, direction="maximize", background="Trees.")
        regrets = tuple(tuple(map(float, row)) for row in rng.uniform(0.0, 1.5, (3, 8)).round(2))
        return Lesson(task, designs[design], ("a", "b", "c"), regrets, (0.5, 2.25, 1.0), 0.125)

    return [lesson("auc", 0), lesson("accuracy", 0), lesson("auc", 1)]


def test_what_is_written_is_read(taught: list[Lesson], tmp_path: Path) -> None:
    lessons.write(tmp_path / "lessons.json.gz", taught)
    again = lessons.read(tmp_path / "lessons.json.gz")
    assert len(again) == 3
    for before, after in zip(taught, again, strict=True):
        assert after.task.space == SPACE
        for name in ("name", "metric", "direction", "background"):
            assert getattr(after.task, name) == getattr(before.task, name)
        for name in ("configs", "data_sets", "lengths", "noise"):
            assert getattr(after, name) == getattr(before, name)
        assert np.array(after.regrets) == pytest.approx(np.array(before.regrets))


def test_what_is_not_wanted_is_left_out(taught: list[Lesson], tmp_path: Path) -> None:
    lessons.write(tmp_path / "lessons.json.gz", taught)
    some = lessons.read(tmp_path / "lessons.json.gz", lambda task: task.metric == "accuracy")
    assert [lesson.task.metric for lesson in some] == ["accuracy"]


def test_the_same_lessons_make_the_same_file(taught: list[Lesson], tmp_path: Path) -> None:
    for name in ("one", "other"):
        lessons.write(tmp_path / name, taught)
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
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "lessons.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        lessons.read(path)
    assert str(path) in str(error.value)
