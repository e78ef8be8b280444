"""Steps that were killed continue: incomplete files are not used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localhpo.llm.models.description import META_DATA
from localhpo.transfer import source_tasks as file
from scripts.build_model import __main__ as build
from scripts.build_model import atomic_file, leave_out, meta_data, tokenizer, trainings
from scripts.build_model.learners import LEARNERS

NEIGHBORS = next(item for item in LEARNERS if item.name == "neighbors")


def planned(_: int) -> list[Any]:
    """Stand in for the plan of data sets: two small ones."""
    return [(NEIGHBORS, "binary", 3), (NEIGHBORS, "binary", 4)]


def record(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    configs = [trainings.draw(NEIGHBORS, rng) for _ in range(60)]
    scores = [{"accuracy": 1.0 - abs(np.log(c["n_neighbors"] / seed)) / 5} for c in configs]
    return {
        "learner": "neighbors", "kind": "binary", "seed": seed, "text": "40 rows",
        "configs": configs, "scores": scores,
    }  # fmt: skip


def cut(path: Path, count: int) -> None:
    """Leave a file without its last bytes, as a kill does."""
    path.write_bytes(path.read_bytes()[:-count])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a few questions and trainings."""
    (tmp_path / "questions").mkdir()
    row = {"prompt": "a\n9:", "answers": ['{"lr":1e-1}'], "qualities": [9], "trials": 0}
    lines = [json.dumps({**row, "source": f"{s}/1"}) for s in ("rbv2_ranger", "lcbench")]
    (tmp_path / "questions" / "shard-000.jsonl").write_text("".join(f"{one}\n" for one in lines))
    records = [
        json.dumps(record(seed)) for seed in (30, 40, 50)
    ]  # others than elsewhere: fits are kept
    (tmp_path / "trainings.jsonl").write_text("".join(f"{one}\n" for one in records))
    return tmp_path


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_trainings_go_on_after_a_line_that_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "plan", planned)
    path = tmp_path / "trainings.jsonl"
    trainings.main(path, 2, 2)
    before = {one["seed"]: one for one in trainings.load(path)}
    assert before.keys() == {3, 4}
    cut(path, 40)
    (left,) = trainings.load(path)
    trainings.main(path, 2, 2)
    after = trainings.load(path)
    assert sorted(one["seed"] for one in after) == [3, 4]
    assert after[0] == left
    assert all(one["configs"] == before[one["seed"]]["configs"] for one in after)


@pytest.mark.parametrize("left", [0, 300])
def test_incomplete_meta_data_are_made_again(work: Path, left: int) -> None:
    arguments = ["meta-data", "--work", str(work), "--sources", "training"]
    build.main(arguments)
    target = work / META_DATA
    content = target.read_bytes()
    target.write_bytes(content[:left])
    build.main(arguments)
    assert target.read_bytes() == content
    assert len(file.read_source_tasks(target)) == 1


def test_complete_meta_data_are_kept(work: Path) -> None:
    file.write_source_tasks(work / META_DATA, [])
    build.main(["meta-data", "--work", str(work), "--sources", "training"])
    assert file.read_source_tasks(work / META_DATA) == ()


def test_meta_data_are_written_atomically(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, _: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(meta_data.source_tasks, "write_source_tasks", killed)
    with pytest.raises(KeyboardInterrupt):
        build.main(["meta-data", "--work", str(work), "--sources", "training"])
    assert not (work / META_DATA).exists()


def test_a_vocabulary_whose_second_file_is_missing_or_cut_is_completed(work: Path) -> None:
    build.main(["tokenizer", "--work", str(work)])
    config = work / "model" / "tokenizer_config.json"
    content = config.read_bytes()
    vocabulary = (work / "model" / "tokenizer.json").stat().st_mtime_ns
    for damage in (Path.unlink, lambda path: cut(path, 40)):
        damage(config)
        build.main(["tokenizer", "--work", str(work)])
        assert config.read_bytes() == content
    # A checkpoint may have been trained with it.
    assert (work / "model" / "tokenizer.json").stat().st_mtime_ns == vocabulary


def test_a_vocabulary_that_was_cut_is_made_again(work: Path) -> None:
    build.main(["tokenizer", "--work", str(work)])
    path = work / "model" / "tokenizer.json"
    content = path.read_bytes()
    cut(path, 40)
    build.main(["tokenizer", "--work", str(work)])
    assert path.read_bytes() == content
    assert tokenizer.load(work / "model").get_vocab_size() > 256


def test_copied_shards_are_written_atomically(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = work / "other"
    assert leave_out.copy_without(work / "questions", target, ["lcbench"]) == 1
    before = (target / "shard-000.jsonl").read_text()
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leave_out.copy_without(work / "questions", target, ["rbv2_ranger"])
    assert (target / "shard-000.jsonl").read_text() == before


def test_a_write_that_is_interrupted_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    atomic_file.write_atomically(path, "old")
    monkeypatch.setattr(atomic_file.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_file.write_atomically(path, "new")
    assert path.read_text() == "old"
