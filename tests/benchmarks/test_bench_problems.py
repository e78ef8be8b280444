"""Problems: known functions, tables, trainings, and what they are measured by."""

import gzip
import json
import math
import re

import numpy as np
import pytest

from localhpo.errors import ConfigurationError, InputError, LocalHPOError, MissingExtraError
from scripts.benchmarks.problems import functions, surrogates
from scripts.benchmarks.problems.dims import Dim
from scripts.benchmarks.problems.problem import compute_reference
from scripts.benchmarks.problems.registry import DataFolders, check_requirements, open_problem
from scripts.benchmarks.problems.trainings import Cache


def test_the_quadratics_are_those_of_the_paper(folders):
    first = open_problem("function/quadratic-2-3/0", folders)
    second = open_problem("function/quadratic-3-5/0", folders)
    assert first.evaluate({"x": 2.0, "y": 3.0}) == 0.0
    assert first.evaluate({"x": -5.0, "y": 5.0}) == 49.0 + 4.0
    assert second.evaluate({"x": 3.0, "y": 5.0}) == 0.0
    assert second.evaluate({"x": 10.0, "y": -10.0}) == 49.0 + 225.0
    assert [(p.low, p.high) for p in second.space] == [(-10.0, 10.0)] * 2


@pytest.mark.parametrize("name", functions.names())
@pytest.mark.parametrize("variant", [0, 1, 11])
def test_no_configuration_is_better_than_the_optimum(name, variant):
    problem = functions.make(name, variant)
    rng = np.random.default_rng(0)
    values = problem.evaluate_many([problem.space.sample(rng) for _ in range(400)])
    assert problem.optimum is not None
    assert np.isfinite(values).all()
    assert values.min() >= problem.optimum - 1e-5
    assert np.ptp(values) > 0


@pytest.mark.parametrize("name", functions.names())
def test_the_optimum_is_reached_by_descent(name):
    """From the best of many draws, coordinate steps of the grid come near the known optimum."""
    problem = functions.make(name, 1)
    space, rng = problem.space, np.random.default_rng(1)
    point = min(
        (space.encode(space.sample(rng)) for _ in range(3000)),
        key=lambda p: problem.evaluate(space.decode(p)),
    )
    for width in np.geomspace(0.2, 0.002, 30):
        near = np.clip(point + width * rng.normal(size=(200, len(point))), 0, 1)
        best = min([*near, point], key=lambda p: problem.evaluate(space.decode(p)))
        point = best
    known = compute_reference(problem)
    gap = problem.evaluate(space.decode(point)) - known.best
    assert 0.0 <= gap + 1e-5 <= 0.05 * (known.median - known.best)


@pytest.mark.parametrize("name", ["branin", "hartmann6", "ackley5", "mixed-log4"])
def test_the_center_is_not_the_optimum(name):
    for variant in (1, 2, 11, 12):
        problem = functions.make(name, variant)
        known = compute_reference(problem)
        center = problem.evaluate(problem.space.default())
        assert (center - known.best) / (known.median - known.best) > 0.01


def test_variants_differ_and_stay_the_same():
    one, other = functions.make("branin", 1), functions.make("branin", 2)
    assert one.digest != other.digest
    assert one.digest == functions.make("branin", 1).digest
    config = {"x1": 1.0, "x2": 2.0}
    assert one.evaluate(config) != other.evaluate(config)
    assert one.evaluate(config) == functions.make("branin", 1).evaluate(config)


def test_a_digest_changes_with_what_decides_a_study(make_problem):
    import dataclasses

    problem = make_problem()
    task = dataclasses.replace(problem.task, background="a valley")
    assert make_problem().digest == problem.digest
    assert dataclasses.replace(problem, task=task).digest != problem.digest
    assert dataclasses.replace(problem, draws=100).digest != problem.digest
    assert dataclasses.replace(problem, definition={"made": "else"}).digest != problem.digest


# References.


def test_a_reference_without_an_optimum_is_the_best_of_draws_and_crosses(make_problem):
    drawn = compute_reference(make_problem(draws=300, crosses=0))
    crossed = compute_reference(make_problem(draws=300, crosses=200))
    assert 0.0 <= crossed.best <= drawn.best
    assert crossed.median == drawn.median
    assert compute_reference(make_problem(draws=300, crosses=200)) == crossed
    upside_down = make_problem(
        lambda x, n: -((x - 0.3) ** 2) - abs(n - 4), "maximize", draws=300, crosses=200
    )
    assert compute_reference(upside_down).best == -crossed.best
    assert compute_reference(upside_down).median == -crossed.median


def test_failures_are_left_out_of_a_reference(make_problem):
    half = make_problem(lambda x, n: x if n > 4 else math.nan, draws=400, crosses=50)
    known = compute_reference(half)
    assert 0.0 <= known.best < 0.05
    assert 0.4 < known.median < 0.6
    with pytest.raises(LocalHPOError, match="random configurations has a value"):
        compute_reference(make_problem(lambda x, n: math.nan))


# A user's own table.

TASK = """
[task]
name = "mine"
metric = "acc"
direction = "maximize"

[space]
lr = { type = "float", low = 1e-4, high = 1.0, log = true }
layers = { type = "int", low = 1, high = 4 }
opt = { type = "categorical", values = ["sgd", "adam"] }
nesterov = { type = "categorical", values = [true, false], when = { opt = ["sgd"] } }
"""
ROWS = """lr,layers,opt,nesterov,acc,seconds
1e-3,2,adam,,0.8,3
0.1,2,sgd,True,0.7,4
0.1,2,sgd,false,0.6,5
1.0,4,adam,,,6
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / "task.toml").write_text(TASK)
    path = tmp_path / "trials.csv"
    path.write_text(ROWS)
    return path


def test_a_configuration_has_the_value_of_the_nearest_row(table, folders):
    problem = open_problem(f"table/{table}", folders)
    assert problem.direction == "maximize"
    assert problem.evaluate({"lr": 2e-3, "layers": 2, "opt": "adam"}) == 0.8
    assert problem.evaluate({"lr": 0.1, "layers": 3, "opt": "sgd", "nesterov": True}) == 0.7
    assert problem.evaluate({"lr": 0.2, "layers": 2, "opt": "sgd", "nesterov": False}) == 0.6
    assert math.isnan(problem.evaluate({"lr": 0.9, "layers": 4, "opt": "adam"}))
    digest = problem.digest
    table.write_text(ROWS.replace("0.8", "0.81"))
    assert open_problem(f"table/{table}", folders).digest != digest


def test_a_table_may_come_from_a_spreadsheet(table, folders):
    """Such files begin with a byte order mark."""
    table.write_text(ROWS, encoding="utf-8-sig")
    assert open_problem(f"table/{table}", folders).evaluate({"lr": 1e-3, "layers": 2}) == 0.8


@pytest.mark.parametrize(
    ("task", "rows", "says"),
    [
        (None, ROWS, "needs its task beside it"),
        (TASK, "lr,layers,opt,nesterov\n", "at least one evaluated configuration"),
        (TASK, ROWS.replace("acc", "loss"), "must have a column 'acc'"),
        (TASK, ROWS.replace("1e-3,2", "5,2"), r"trials.csv:2: lr must be"),
        (TASK, ROWS.replace("1e-3,2", "1e-3,two"), r"trials.csv:2: layers"),
        (TASK, ROWS.replace(",0.7,4", ",0.7"), r"trials.csv:3 must have as many cells"),
        (TASK, ROWS.replace(",0.7,4", ",0.7,4,1"), r"trials.csv:3 must have as many cells"),
        (TASK, re.sub(r"0\.[678]", "1e400", ROWS), r"a number under 'acc'"),
        (TASK.replace("[task]", "[tusk]"), ROWS, "unknown key 'tusk'"),
        ("[task", ROWS, "task.toml cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(table, folders, task, rows, says):
    (table.parent / "task.toml").unlink()
    if task is not None:
        (table.parent / "task.toml").write_text(task)
    table.write_text(rows)
    with pytest.raises(InputError, match=says):
        open_problem(f"table/{table}", folders)


# Crops.

DIMS = (
    Dim("booster", values=("tree", "line", "dart")),
    Dim("eta", 1e-4, 1.0, log=True, when=("booster", ("tree", "dart"))),
    Dim("drop", 0.0, 1.0, when=("booster", ("dart",))),
    Dim("depth", 1, 15, integer=True, when=("booster", ("tree", "dart"))),
    Dim("rounds", 7, 2981, log=True, integer=True),
    Dim("alpha", math.exp(-7), math.exp(7), log=True),
)


@pytest.mark.parametrize("seed", range(40))
def test_a_crop_lies_within_the_full_space(seed):
    full = surrogates.full_space(DIMS)
    rng = np.random.default_rng(seed)
    good = full.sample(rng)
    cut = surrogates.crop(DIMS, good, rng)
    assert len(cut.held) <= len(DIMS) // 2
    assert len(cut.space) >= 2
    assert set(cut.held) | set(cut.space.names) <= set(full.names)
    assert not set(cut.held) & set(cut.space.names)
    for parameter in cut.space:
        if parameter.kind == "categorical":
            continue
        whole = full[parameter.name]
        assert whole.low <= parameter.low < parameter.high <= whole.high
        part = abs(whole.to_unit(parameter.high) - whole.to_unit(parameter.low))
        assert part >= 0.49
    for _ in range(20):
        config = surrogates._active(DIMS, {**cut.held, **cut.space.sample(rng)})
        full.canonical({name: config[name] for name in full.names if name in config})


# The cache of trainings.


def test_a_cache_is_shared_and_survives_a_kill(tmp_path):
    path = tmp_path / "deep" / "cache.jsonl"
    one, other = Cache(path), Cache(path)
    assert one.get("a") is None
    one.put("a", 0.5)
    one.put("b", math.nan)
    assert other.get("a") == 0.5
    assert math.isnan(other.get("b"))
    with path.open("a") as file:
        file.write('{"key": "c", "sco')  # cut short
    other.put("d", 0.25)
    assert one.get("d") == 0.25
    assert one.get("c") is None
    assert Cache(path).get("d") == 0.25


def test_a_training_runs_once(tmp_path, monkeypatch):
    pytest.importorskip("xgboost")
    pytest.importorskip("sklearn")
    from scripts.benchmarks.problems import trainings

    folders = DataFolders(None, tmp_path)
    problem = open_problem("mlp/iris", folders)
    config = problem.space.default()
    score = problem.evaluate(config)
    assert 0.0 < score < 2.0
    (path,) = tmp_path.glob("mlp-iris-*.jsonl")
    assert json.loads(path.read_text().strip())["score"] == score
    monkeypatch.setitem(trainings._TRAIN, "mlp", None)  # would raise
    assert open_problem("mlp/iris", folders).evaluate(config) == score


@pytest.mark.parametrize(
    ("name", "metric", "direction", "parameters"),
    [
        ("xgboost/breast-cancer", "val_logloss", "minimize", 10),
        ("xgboost/wine", "val_logloss", "minimize", 9),
        ("xgboost/diabetes", "val_r2", "maximize", 9),
        ("xgboost/made-friedman", "val_r2", "maximize", 9),
    ],
)
def test_trainings_in_the_space_of_the_paper(folders, name, metric, direction, parameters):
    pytest.importorskip("xgboost")
    problem = open_problem(name, folders)
    assert (problem.task.metric, problem.direction) == (metric, direction)
    assert len(problem.space) == parameters
    assert ("scale_pos_weight" in problem.space) == (parameters == 10)
    assert problem.task.background.startswith("XGBoost on ")
    score = problem.evaluate(problem.space.default())
    assert math.isfinite(score)
    assert problem.evaluate(problem.space.default()) == score


# Tables of whole spaces.

FCNET = """init_lr,n_units_1,activation_fn_1,val_mse
0.001,16,relu,0.1
0.001,8,relu,0.01
0.01,16,tanh,1.0
0.01,8,tanh,0.001
"""
CELLS = """Op0,Op1,val_accuracy
none,none,10.0
none,skip,50.0
skip,none,70.0
skip,skip,90.0
"""


@pytest.fixture
def grid_folders(tmp_path):
    (tmp_path / "tables").mkdir()
    for name, text in (("fcnet_small", FCNET), ("nb201_small", CELLS)):
        with gzip.open(tmp_path / "tables" / f"{name}.csv.gz", "wt") as file:
            file.write(text)
    return DataFolders(tmp_path, tmp_path)


def test_a_table_of_losses_is_tuned_by_their_logarithm(grid_folders):
    problem = open_problem("grid/fcnet_small/table", grid_folders)
    assert (problem.task.metric, problem.direction) == ("log_val_mse", "minimize")
    assert problem.space["n_units_1"].values == (8, 16), "in order"
    config = {"init_lr": 0.01, "n_units_1": 8, "activation_fn_1": "tanh"}
    assert problem.evaluate(config) == math.log(0.001)
    reference = compute_reference(problem)
    assert (reference.best, reference.median) == (math.log(0.001), math.log(1.0))


def test_a_table_of_accuracies_is_measured_by_its_worst_row(grid_folders):
    problem = open_problem("grid/nb201_small/table", grid_folders)
    assert problem.direction == "maximize"
    reference = compute_reference(problem)
    assert (reference.best, reference.median) == (90.0, 10.0)
    assert problem.evaluate({"Op0": "none", "Op1": "skip"}) == 50.0


def test_a_table_in_other_spellings_is_the_same_problem(grid_folders):
    problems = {
        spelling: open_problem(f"grid/fcnet_small/{spelling}", grid_folders)
        for spelling in ("table", "keras", "nested")
    }
    assert problems["keras"].space.names == ("learning_rate", "units_1", "activation_1")
    assert problems["nested"].space.names[0] == "optim.lr"
    assert len({problem.digest for problem in problems.values()}) == 3
    values = [
        problem.evaluate(dict(zip(problem.space.names, (0.001, 8, "relu"), strict=True)))
        for problem in problems.values()
    ]
    assert values == [math.log(0.01)] * 3


def test_an_unknown_spelling_is_an_error(grid_folders):
    with pytest.raises(InputError, match="the spelling of problem") as caught:
        open_problem("grid/fcnet_small/kears", grid_folders)
    assert "keras" in caught.value.hint


# Names.


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("functoin/branin/1", "a problem must be named", "did you mean 'function'?"),
        ("function/bramin/1", "the function of problem", "did you mean 'branin'?"),
        ("function/branin", "number of its variant", "function/branin/1"),
        ("yahpo/rbv2_svm/3/auc/full", "need the folder of public data", "LOCALHPO_DATA"),
        ("table/nowhere.csv", "needs its task beside it", ""),
    ],
)
def test_an_unknown_name_is_an_error(folders, name, says, hint):
    with pytest.raises(InputError, match=says) as caught:
        open_problem(name, folders)
    assert hint in caught.value.hint


def test_a_folder_that_is_not_the_data_folder(tmp_path):
    with pytest.raises(InputError, match=r"must hold yahpo/, which .* does not"):
        check_requirements(
            ["yahpo/lcbench/3945/val_accuracy/full"], DataFolders(tmp_path, tmp_path)
        )


def test_a_missing_package_names_the_extra(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "yahpo").mkdir()
    with pytest.raises(MissingExtraError, match="needs onnxruntime") as caught:
        check_requirements(
            ["yahpo/lcbench/3945/val_accuracy/full"], DataFolders(tmp_path, tmp_path)
        )
    assert caught.value.hint == "pip install 'localhpo[bench]'"
    with pytest.raises(MissingExtraError, match="needs xgboost"):
        open_problem("xgboost/iris", folders)


def test_a_value_outside_the_space_is_refused_by_the_table(table, folders):
    problem = open_problem(f"table/{table}", folders)
    with pytest.raises(ConfigurationError):
        problem.space.canonical({"lr": 7.0, "layers": 2, "opt": "adam"})
