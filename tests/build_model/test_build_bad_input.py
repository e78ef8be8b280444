"""What is missing or misspelled is named, and nothing is made of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.build_model import __main__ as build


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["generate"], ["nowhere", "--data FOLDER"]),
        (["meta-data", "--sources", "yahpo"], ["nowhere/yahpo", "--data FOLDER"]),
        (["generate", "--sources", "published"], ["nowhere/tabdl_tuning"]),
        (["generate", "--sources", "taskset"], ["nowhere/taskset_adam8p"]),
        (["generate", "--sources", "training"], ["trainings.jsonl", "train-data"]),
        (["generate", "--sources", "functions"], ["got 'functions'", "did you mean 'function'?"]),
        (["tokenizer"], ["no questions", "generate"]),
    ],
)
def test_missing_data_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], wanted: list[str]
) -> None:
    work = tmp_path / "work"
    with pytest.raises(SystemExit) as caught:
        build.main([*arguments, "--data", str(tmp_path / "nowhere"), "--work", str(work)])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert [text for text in wanted if text not in told] == []
    assert not work.exists()
