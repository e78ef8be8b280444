"""What is tuned, and what makes results of it stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from localhpo.errors import DataError, InputError
from scripts.benchmarks.agenthpo.subjects import QUADRATICS, default_names, open_subject

TASK = """
[task]
name = "tiny"
command = ["python", "train.py"]
metric = "val_f1"
direction = "maximize"
background = "{background}"
[space]
x = {{ type = "float", low = 0.0, high = {high} }}
[data]
folder = "sheets"
files = {{ "x.csv" = "numbers" }}
source = "https://example.org"
license = "CC0"
[budget]
trials = {trials}
[resources]
parallel = 3
"""
SCRIPT = "import sys\nimport numpy\n"


@pytest.fixture
def make(tmp_path: Path):
    (tmp_path / "data" / "sheets").mkdir(parents=True)
    (tmp_path / "data" / "sheets" / "x.csv").write_text("1,2\n")

    def make(script: str = SCRIPT, **changes: object):
        values = {"background": "small", "high": 1.0, "trials": 10, **changes}
        (tmp_path / "task.toml").write_text(TASK.format(**values))
        (tmp_path / "train.py").write_text(script)
        return open_subject(str(tmp_path / "task.toml"), data=tmp_path / "data")

    return make


def test_trials_run_one_after_another(make):
    assert make().task.resources.parallel == 1


def test_a_changed_script_makes_trainings_and_studies_stale(make):
    before = make()
    known = (before.training_digest, before.digest)
    after = make(SCRIPT + "# another\n")
    assert after.training_digest != known[0]
    assert after.digest != known[1]


@pytest.mark.parametrize("changes", [{"background": "large"}, {"high": 2.0}], ids=str)
def test_what_only_the_creator_is_told_leaves_trainings_valid(make, changes):
    before, after = make(), make(**changes)
    assert before.training_digest == after.training_digest
    assert before.digest != after.digest


def test_other_data_are_other_trainings(make, tmp_path):
    before = make().training_digest
    (tmp_path / "data" / "another.csv").touch()
    assert make().training_digest == before
    (tmp_path / "data" / "sheets" / "x.csv").write_text("1,2\n3,4\n")
    assert make().training_digest != before
    (tmp_path / "data" / "sheets" / "x.csv").unlink()
    with pytest.raises(DataError, match=r"x\.csv"):
        make().files()


def test_the_budget_is_the_plans(make):
    assert make().digest == make(trials=99).digest


def test_another_version_of_an_imported_package_is_another_training(make, monkeypatch):
    before = make().training_digest
    real = "scripts.benchmarks.agenthpo.subjects.metadata.version"
    monkeypatch.setattr(real, lambda name: "0.0" if name == "numpy" else "1.0")
    assert make().training_digest != before


def test_the_defaults_are_tasks_with_data_and_the_quadratics(tmp_path):
    assert default_names() == list(QUADRATICS)
    (tmp_path / "housing_price_dataset.csv").touch()
    assert default_names(tmp_path) == ["house-xgboost", *QUADRATICS]
    assert open_subject("quadratic-3-5").function.evaluate({"x": 3.0, "y": 5.0}) == 0.0


def test_what_is_not_there_is_said():
    with pytest.raises(InputError, match="a task must be one of") as raised:
        open_subject("quadratic-2-4")
    assert "quadratic-2-3" in raised.value.hint
    assert open_subject("water-xgboost").reported
    assert open_subject("water-xgboost", small=True).reported is None
    with pytest.raises(InputError, match="no small size"):
        open_subject("breast-cancer-xgboost", small=True)
