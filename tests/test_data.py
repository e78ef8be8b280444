"""The data of a task: what its table may say, and where the files are looked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localhpo.data import Data, file_in, find_data, parse_data
from localhpo.errors import DataError, TaskError
from localhpo.task import Task, with_data

WATER = {
    "folder": ["water-potability", "water"],
    "files": {"water.csv": "3,276 rows"},
    "source": "https://example.org/water",
    "license": "CC0",
}


def made(**changes: object) -> Data:
    data = parse_data({**WATER, **changes}, "[data]")
    assert data is not None
    return data


def test_a_table_becomes_data_and_a_table_again() -> None:
    other = {**WATER, "folder": "lake", "source": "https://example.org/lake"}
    data = made(weights={**WATER, "folder": "net"}, instead={"lake": other})
    assert data.folder == ("water-potability", "water")
    assert data.weights is not None
    assert data.weights.folder == ("net",)
    assert parse_data(data.to_table(), "[data]") == data
    assert data.chosen(("python", "train.py")) is data
    assert data.chosen(("python", "train.py", "--dataset", "lake")) is data.instead["lake"]
    assert parse_data({}, "[data]") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licnece": "MIT"}, "unknown key 'licnece'"),
        ({"license": ""}, "license: must be given"),
        ({"source": None}, "source: must be given"),
        ({"folder": []}, "folder: must name at least one folder"),
        ({"folder": 3}, "folder: must be given, as a string"),
        ({"files": {}}, "must have a table \\[files\\]"),
        ({"files": {"a.csv": 1}}, "files a.csv: must be a string"),
        ({"weights": {**WATER, "weights": WATER}}, "unknown key 'weights'"),
        ({"instead": {"lake": {**WATER, "instead": {}}}}, "lake: unknown key 'instead'"),
        ({"instead": {"lake": {}}}, "must have a table \\[lake\\]"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        made(**changes)


@pytest.mark.parametrize("where", ["", "water-potability", "water"])
@pytest.mark.parametrize("name", ["water.csv", "water.csv.gz"])
def test_files_are_found_in_either_folder(tmp_path: Path, where: str, name: str) -> None:
    folder = tmp_path / where
    folder.mkdir(exist_ok=True)
    (folder / name).touch()
    assert find_data(made(), tmp_path) == folder
    assert file_in(folder, "water.csv") == folder / name


def test_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "water.csv").touch()
    monkeypatch.setenv("LOCALHPO_DATA", str(tmp_path))
    assert find_data(made(), None) == tmp_path
    with pytest.raises(DataError):
        find_data(made(), tmp_path / "elsewhere")


def test_a_packed_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "train.tar.gz").touch()
    assert find_data(made(files={"train": "images"}), tmp_path) == tmp_path


def test_error_lists_all_missing_files(tmp_path: Path) -> None:
    (tmp_path / "water").mkdir()
    (tmp_path / "water" / "water.csv").touch()
    data = made(files={"water.csv": "3,276 rows", "more.csv": "2 rows"})
    with pytest.raises(DataError) as caught:
        find_data(data, tmp_path)
    message = str(caught.value)
    assert "more.csv (2 rows)" in message
    assert "water.csv" not in message.replace("more.csv", ""), "what is there is not wanted"
    assert f"in {tmp_path / 'water'}" in message
    assert "https://example.org/water" in message
    assert "CC0" in message
    assert "--data DIR or set LOCALHPO_DATA=DIR" in caught.value.hint


def test_without_a_place_everything_is_wanted() -> None:
    with pytest.raises(DataError, match=r"water.csv \(3,276 rows\)"):
        find_data(made(), None)


def test_trials_get_the_paths_of_data_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_task: Callable[..., Task]
) -> None:
    (tmp_path / "water.csv").touch()
    weights = {**WATER, "folder": "net", "files": {"model.safetensors": "the model"}}
    task = make_task(data=made(weights=weights))
    with pytest.raises(DataError, match=r"model.safetensors \(the model\)"):
        with_data(task, tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path.parent)
    told = with_data(task, Path(tmp_path.name))
    assert told.env["LOCALHPO_DATA"] == str(tmp_path), "trials run in another folder"
    assert with_data(told) == told, "the task's own setting wins"
    assert with_data(make_task()) == make_task()


def test_a_command_wants_its_data_and_the_weights() -> None:
    other = {**WATER, "folder": "lake"}
    data = made(weights={**WATER, "folder": "net"}, instead={"lake": other})
    lake = data.instead["lake"]
    assert data.wanted(("train.py",)) == (data, data.weights)
    assert data.wanted(("train.py", "--dataset", "lake")) == (lake, data.weights)
    assert data.wanted(("train.py", "--small")) == (data,), "it begins with random weights"
    assert made().wanted(("train.py",)) == (made(),)
