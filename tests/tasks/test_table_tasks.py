"""Water and houses, each trained as a study trains it: on made tables, and on the real ones."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from localhpo import tasks
from localhpo.cli import main
from localhpo.errors import DataError
from localhpo.study import Study
from localhpo.task import CreatorSettings, load_task
from localhpo.trial import Cause, State

pytest.importorskip("xgboost")
pytest.importorskip("sklearn")

QUICK = {"max_depth": 3, "learning_rate": 0.2, "n_estimators": 60}
WATER_COLUMNS = (
    "ph,Hardness,Solids,Chloramines,Sulfate,Conductivity,Organic_carbon,"
    "Trihalomethanes,Turbidity,Potability"
)


def make_water(place: Path, rows: int = 300) -> Path:
    """Write a table with gaps whose label is told by its second column."""
    draw = random.Random(0)
    lines = [WATER_COLUMNS]
    for _ in range(rows):
        cells = [f"{draw.gauss(0, 1):.4f}" for _ in range(9)]
        label = int(float(cells[1]) + draw.gauss(0, 0.3) > 0)
        cells[0] = "" if draw.random() < 0.2 else cells[0]
        lines.append(",".join([*cells, str(label)]))
    folder = place / "water-potability"
    folder.mkdir(parents=True)
    (folder / "water_potability.csv").write_text("\n".join(lines) + "\n")
    return place


def make_houses(place: Path, rows: int = 600) -> Path:
    """Write a compressed table whose price grows with the area."""
    draw = random.Random(0)
    lines = ["SquareFeet,Bedrooms,Bathrooms,Neighborhood,YearBuilt,Price"]
    for _ in range(rows):
        area, where = draw.randint(1000, 2999), draw.choice(["Rural", "Suburb", "Urban"])
        price = 100 * area + draw.gauss(0, 10_000)
        lines.append(f"{area},{draw.randint(2, 5)},{draw.randint(1, 3)},{where},1990,{price:.4f}")
    with gzip.open(place / "housing_price_dataset.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    return place


def test_water_learns_and_can_be_repeated(run_task: Callable, tmp_path: Path) -> None:
    place = make_water(tmp_path / "data")
    outcome, reported = run_task("water-xgboost", place, "--small", **QUICK)
    assert outcome.state is State.COMPLETE, outcome
    assert outcome.value > 0.8
    assert {m.name for m in reported} == {"val_f1", "val_logloss", "train_logloss", "test_f1"}
    assert [m.step for m in reported if m.name == "val_f1"] == [25, 30]
    again, _ = run_task("water-xgboost", place, "--small", trial=1, **QUICK)
    assert again.value == outcome.value


def test_the_label_leaks_only_where_that_is_asked_for(run_task: Callable, tmp_path: Path) -> None:
    place = make_water(tmp_path / "data")
    kept, _ = run_task("water-xgboost", place, **QUICK)
    filled, _ = run_task("water-xgboost", place, "--gaps", "class-mean", trial=1, **QUICK)
    assert filled.value != kept.value


def test_houses_learn(run_task: Callable, tmp_path: Path) -> None:
    outcome, reported = run_task("house-xgboost", make_houses(tmp_path), "--small", **QUICK)
    assert outcome.state is State.COMPLETE, outcome
    assert outcome.value > 0.8
    assert {m.name for m in reported} == {"val_r2", "train_r2", "test_r2"}


def test_a_script_says_itself_what_is_missing(run_task: Callable, tmp_path: Path) -> None:
    outcome, _ = run_task("water-xgboost", tmp_path, **QUICK)
    assert outcome.failure.cause is Cause.EXIT_CODE
    told = f"{outcome.failure.message}\n{outcome.failure.stderr_tail}"
    assert "wanted:  water_potability.csv" in told
    assert "kaggle.com" in told


def test_a_study_of_python_is_told_what_is_missing_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCALHPO_DATA", raising=False)
    task = load_task(tasks.find("water-xgboost"))
    task = dataclasses.replace(task, creator=CreatorSettings(name="random"))
    with pytest.raises(DataError, match=r"water_potability\.csv"):
        Study.open(task, home=home).run()
    assert not home.exists(), "nothing was begun"


def test_run_tells_the_trials_where_the_data_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_water(tmp_path / "sets")
    monkeypatch.chdir(tmp_path)
    command = ["run", "water-xgboost", "--trials", "1", "--creator", "random", "--json"]
    assert main([*command, "--data", "sets"]) == 0, "a relative folder is that of the user"
    (trial,) = json.loads(capsys.readouterr().out)["trials"]
    assert trial["state"] == "complete"
    monkeypatch.setenv("LOCALHPO_DATA", "sets")
    assert main(["tasks", "--json"]) == 0
    found = {task["name"]: task["data"] for task in json.loads(capsys.readouterr().out)}
    assert found["water-xgboost"]["found"] == str(tmp_path / "sets" / "water-potability")
    assert found["house-xgboost"]["found"] is None
    assert found["breast-cancer-xgboost"] is None
    assert main(["tasks", "show", "house-xgboost"]) == 0
    shown = capsys.readouterr().out
    assert "housing_price_dataset.csv" in shown
    assert "not found (set LOCALHPO_DATA, or --data DIR)" in shown
    assert "pip install 'localhpo[tasks]'" in shown


def test_real_water(run_task: Callable, public_data: Callable) -> None:
    place = public_data("water_potability")
    config = {"max_depth": 6, "learning_rate": 0.03, "n_estimators": 150, "scale_pos_weight": 3.0}
    outcome, _ = run_task("water-xgboost", place, **config)
    assert 0.54 < outcome.value < 0.62


def test_real_houses(run_task: Callable, public_data: Callable) -> None:
    config = {"max_depth": 4, "learning_rate": 0.1, "n_estimators": 100}
    outcome, _ = run_task("house-xgboost", public_data("housing_price"), **config)
    assert 0.55 < outcome.value < 0.58
