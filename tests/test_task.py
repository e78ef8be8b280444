from __future__ import annotations

import re
from pathlib import Path

import pytest

from localhpo.errors import SpaceError, TaskError
from localhpo.task import load_task, parse_task, to_table, with_overrides

GOOD = """
[task]
name = "water-xgboost"
command = ["python", "train.py", "--data", "water.csv"]
metric = "val_f1"
direction = "maximize"
background = "Gradient boosting"

[space]
learning_rate = { type = "float", low = 1e-3, high = 1.0, log = true, help = "shrinkage" }
booster = { type = "categorical", values = ["gbtree", "dart"] }
rate_drop = { type = "float", low = 0.0, high = 0.5, when = { booster = ["dart"] } }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "task.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_task_file_becomes_a_task(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD))
    assert task.command == ("python", "train.py", "--data", "water.csv")
    assert (task.metric, task.direction, task.value) == ("val_f1", "maximize", "last")
    assert task.space.names == ("learning_rate", "booster", "rate_drop")
    assert task.budget.trials == 10
    assert task.folder == tmp_path
    assert load_task(tmp_path) == task


def test_every_section_is_read(tmp_path: Path) -> None:
    more = """
[budget]
minutes = 2
timeout_s = 600
[resources]
parallel = 2
gpus = 0.5
[creator]
name = "tpe"
allow_remote = ["tuner.lan"]
[pruner]
name = "asha"
reduction_factor = 4
"""
    task = load_task(write(tmp_path, GOOD + more))
    assert task.budget.trials is None, "another bound alone takes the place of trials"
    assert (task.budget.minutes, task.budget.timeout_s) == (2.0, 600.0)
    assert (task.resources.parallel, task.resources.gpus) == (2, 0.5)
    assert (task.creator.name, task.creator.allow_remote) == ("tpe", ("tuner.lan",))
    assert (task.pruner.name, task.pruner.reduction_factor) == ("asha", 4)
    assert parse_task(to_table(task), folder=task.folder, source=task.source) == task


def change(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task = [", "not valid TOML"),
        ("[task]\nname = 'a'\n", "metric"),
        (change('metric = "val_f1"', ""), "metric"),
        (change('direction = "maximize"', ""), "direction"),
        (change('"maximize"', '"maximal"'), "must be one of 'minimize', 'maximize'"),
        (change('"water-xgboost"', '"../evil"'), "letters, digits"),
        (change('["python", "train.py", "--data", "water.csv"]', '"python train.py"'), "list of"),
        (change('command = ["python", "train.py", "--data", "water.csv"]', ""), "command"),
        (change("[task]", "[tasks]"), "unknown key 'tasks'"),
        (change("background", "backgruond"), "unknown key 'backgruond'"),
        (GOOD + "[budget]\ntrials = -3", "greater than 0; got -3"),
        (GOOD + "[budget]\ntrials = 0", "must bound the study"),
        (GOOD + "[budget]\ntrials = 1.5", "whole number"),
        (GOOD + "[budget]\nminutes = nan", "finite"),
        (GOOD + "[budget]\ngrace_s = -1", "at least 0"),
        (GOOD + "[resources]\nparallel = true", "whole number"),
        (GOOD + "[creator]\nnam = 'tpe'", "unknown key 'nam'"),
        (GOOD + "[pruner]\nreduction_factor = 1", "at least 2"),
        (GOOD + "budget = 3", "unknown|must be"),
        (change("background", "stdout_regex"), "exactly one group"),
        (change('background = "Gradient boosting"', "stdout_regex = '('"), "regular expression"),
        (change('background = "Gradient boosting"', "env = {A = 1}"), "table of strings"),
        (change('background = "Gradient boosting"', "seed = 'x'"), "whole number"),
    ],
)
def test_invalid_task_file_errors_name_the_rule(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises((TaskError, SpaceError), match=says) as caught:
        load_task(path)
    assert "task.toml" in str(caught.value)
    assert caught.value.exit_code == 2


FIXED = (
    GOOD
    + """
[fixed]
n_estimators = 300
gamma = 0.0312
tree_method = "hist"
enable_categorical = false
"""
)


def test_fixed_values_are_read_and_kept(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, FIXED))
    assert task.fixed == {
        "n_estimators": 300, "gamma": 0.0312, "tree_method": "hist", "enable_categorical": False,
    }  # fmt: skip
    assert task.names == ("learning_rate", "booster", "rate_drop", *task.fixed)
    assert parse_task(to_table(task), folder=task.folder, source=task.source) == task


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('booster = "dart"', "[fixed] booster: must not be in [space]"),
        ("depth = inf", "[fixed] depth: must be a finite number, a text, true or false; got inf"),
        ("depth = [1, 2]", "[fixed] depth: must be a finite number"),
    ],
)
def test_invalid_fixed_values_are_refused(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(TaskError, match=re.escape(says)):
        load_task(write(tmp_path, f"{GOOD}\n[fixed]\n{line}\n"))


def test_hints_suggest_similar_names(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        load_task(write(tmp_path, change("background", "backgruond")))
    assert caught.value.hint == "did you mean 'background'?"
    text = change('["python", "train.py", "--data", "water.csv"]', '"python train.py"')
    with pytest.raises(TaskError) as caught:
        load_task(write(tmp_path, text))
    assert caught.value.hint == 'write ["python", "train.py"]'


def test_missing_task_file_error_suggests_init(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such task file") as caught:
        load_task(tmp_path / "absent.toml")
    assert "localhpo init" in caught.value.hint


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match="cannot be read"):
        load_task(path)


def test_overrides_change_what_they_name(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD))
    assert with_overrides(task) == task
    changed = with_overrides(task, trials=30, parallel=3, seed=7, name="random", model="m")
    assert (changed.budget.trials, changed.resources.parallel, changed.seed) == (30, 3, 7)
    assert (changed.creator.name, changed.creator.model) == ("random", "m")
    with pytest.raises(TaskError, match="--trials: must be greater than 0"):
        with_overrides(task, trials=0)


SEVERAL = (
    change('metric = "val_f1"\ndirection = "maximize"\n', "")
    + """
[[objective]]
name = "val_f1"
direction = "maximize"

[[objective]]
name = "wall_s"
direction = "minimize"

[[constraint]]
name = "latency_ms"
max = 200

[[constraint]]
name = "peak_memory_mb"
min = 10.0
max = 1e3
"""
)


def test_several_objectives_and_constraints_are_read(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, SEVERAL))
    assert [one.describe() for one in task.objectives] == ["maximize val_f1", "minimize wall_s"]
    assert [one.describe() for one in task.constraints] == [
        "latency_ms <= 200",
        "10 <= peak_memory_mb <= 1000",
    ]
    assert (task.metric, task.direction) == ("val_f1", "maximize")
    assert parse_task(to_table(task), folder=task.folder, source=task.source) == task
    single = task.single_objective
    assert (single.objectives, single.constraints) == (task.objectives[:1], ())


def test_the_short_form_and_one_objective_table_are_the_same_task(tmp_path: Path) -> None:
    short = load_task(write(tmp_path, GOOD))
    table = "[[objective]]\nname = 'val_f1'\ndirection = 'maximize'\n[space]"
    text = change('metric = "val_f1"\ndirection = "maximize"\n', "").replace("[space]", table)
    assert load_task(write(tmp_path, text)) == short


def test_keys_of_version_0_1_0_are_read(tmp_path: Path) -> None:
    text = change('direction = "maximize"', 'direction = "maximize"\nobjective = "best"')
    task = load_task(write(tmp_path, text + '[creator]\nexperience = "retrieve"\n'))
    assert (task.value, task.creator.transfer) == ("best", "retrieve")
    table = to_table(task)
    assert table["task"]["value"] == "best"
    assert "objective" not in table["task"]
    assert "experience" not in table["creator"]


def several(old: str, new: str) -> str:
    assert old in SEVERAL
    return SEVERAL.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (several("[task]", '[task]\nmetric = "loss"'), "must be given in one form; got .*metric"),
        (several('direction = "minimize"', ""), r"\[\[objective\]\] 2 direction: must be given"),
        (several('"minimize"', '"down"'), r"\[\[objective\]\] 2 direction: must be one of"),
        (several('name = "wall_s"', 'name = "val_f1"'), "'val_f1' twice"),
        (several('name = "wall_s"', "name = 3"), r"\[\[objective\]\] 2 name: must be a string"),
        (several('name = "wall_s"', ""), r"\[\[objective\]\] 2 name: must be given"),
        (several('name = "wall_s"', 'name = " "'), r"\[\[objective\]\] 2 name: must be given"),
        (several('name = "wall_s"', 'name = "wall_s"\nweight = 2'), "unknown key 'weight'"),
        (several("max = 200", ""), "'latency_ms' by min, max or both"),
        (several("max = 200", "max = inf"), r"\[\[constraint\]\] 1 max: must be a finite number"),
        (several("max = 200", "maximum = 200"), "unknown key 'maximum'"),
        (several("min = 10.0", "min = 2e3"), "min <= max must hold; got min = 2000, max = 1000"),
        (several('"peak_memory_mb"', '"latency_ms"'), "'latency_ms' twice"),
        (SEVERAL.replace("[task]", '[task]\nvalue = "best"'), 'must be "last" with 2 objectives'),
        (SEVERAL + '[pruner]\nname = "asha"\n', '"none" with 2 objectives'),
        (GOOD + '[objective]\nname = "a"\n', r"must be a list of tables, \[\[objective\]\]"),
        (
            change(
                'direction = "maximize"',
                'direction = "maximize"\nobjective = "best"\nvalue = "last"',
            ),
            "one of 'value' and its older name 'objective'",
        ),
    ],
)
def test_objectives_that_make_no_sense_are_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=says):
        load_task(write(tmp_path, text))
