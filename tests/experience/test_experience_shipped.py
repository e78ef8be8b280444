"""Past studies in a file: what is written is read, and what cannot be read says so."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localhpo.errors import InputError
from localhpo.experience import Past, recall, shipped
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import Task
from localhpo.trial import State, Trial

SPACE = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Categorical("booster", ("tree", "dart")),
        Int("drops", 1, 9, when={"booster": ("dart",)}),
    ]
)


@pytest.fixture
def pasts(make_task: Callable[..., Task], make_trial: Callable[..., Trial]) -> list[Past]:
    """Two studies of one task, and one of another with the same space."""
    rng = np.random.default_rng(0)
    one = make_task(space=SPACE, background="Trees on a table.")
    other = make_task(space=SPACE, metric="auc", direction="maximize")

    def study(name: str, task: Task) -> Past:
        configs = [SPACE.sample(rng) for _ in range(20)]
        trials = (make_trial(n, c, score=float(rng.uniform())) for n, c in enumerate(configs))
        return Past(name, task, tuple(trials))

    return [study("a/1", one), study("a/2", one), study("b/1", other)]


def test_what_is_written_is_read(pasts: list[Past], tmp_path: Path) -> None:
    shipped.write(tmp_path / "studies.json.gz", pasts)
    again = shipped.read(tmp_path / "studies.json.gz")
    assert [past.study for past in again] == ["a/1", "a/2", "b/1"]
    assert again[0].task is again[1].task
    for before, after in zip(pasts, again, strict=True):
        assert after.task.space.signature() == SPACE.signature()
        for name in ("name", "metric", "direction", "background"):
            assert getattr(after.task, name) == getattr(before.task, name)
        kept = [(trial.config, trial.score) for trial in after.scored]
        assert kept == [(trial.config, trial.score) for trial in before.scored]
        assert all(trial.state is State.COMPLETE for trial in after.trials)
    task = pasts[0].task
    assert [m.config for m in recall(task, again)] == [m.config for m in recall(task, pasts)]


def test_what_is_not_wanted_is_left_out(pasts: list[Past], tmp_path: Path) -> None:
    shipped.write(tmp_path / "studies.json.gz", pasts)
    some = shipped.read(tmp_path / "studies.json.gz", lambda task: task.metric == "auc")
    assert [past.study for past in some] == ["b/1"]


def test_the_same_studies_make_the_same_file(pasts: list[Past], tmp_path: Path) -> None:
    for name in ("one", "other"):
        shipped.write(tmp_path / name, pasts)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"{"), "cannot be read"),
        (gzip.compress(b'{"format": 1}'), "cannot be read"),
        (gzip.compress(b'{"format": 2}'), "format 2, and this version reads 1"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "studies.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        shipped.read(path)
    assert str(path) in str(error.value)
