"""CSV, JSON and exports of W&B: what is read, what is skipped, and which space is inferred."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhpo.errors import InputError, SpaceError
from localhpo.importers import ImportPlan, SkippedRow, TrialSource, plan_import, read_source
from localhpo.importers.inference import infer_space
from localhpo.objective import Constraint, Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space
from localhpo.task import Task
from localhpo.trial import Trial

Written = Callable[..., TrialSource]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str, name: str = "past.csv", **options: Any) -> TrialSource:
        path = tmp_path / name
        path.write_text(text)
        return read_source(str(path), **options)

    return write


CSV = """\
trial,lr,depth,opt,loss,state
0,1e-4,3,adam,0.5,complete
1,0.1,8,sgd,,failed
2,1e-2,5,adam,0.25,COMPLETE
3,1e-3,5,sgd,0.3,pruned
4,1e-3,4,sgd,0.3,running
5,1e-3,4,sgd,0.3,exploded
6,1e-3,4,sgd,oh,complete
7,1e-3,4,sgd,0.3
"""


def test_rows_of_a_csv_are_read_and_bad_ones_are_skipped(written: Written) -> None:
    source = written(CSV, metrics=["loss"])
    assert [(trial.where, trial.ending, trial.metrics) for trial in source.trials] == [
        ("line 2", "complete", {"loss": 0.5}),
        ("line 3", "failed", {}),
        ("line 4", "complete", {"loss": 0.25}),
        ("line 5", "pruned", {"loss": 0.3}),
    ]
    assert source.trials[0].params == {"lr": 1e-4, "depth": 3, "opt": "adam"}
    assert set(source.skipped) == {
        SkippedRow("line 6", "it has not ended"),
        SkippedRow("line 7", "its state 'exploded' is not known"),
        SkippedRow("line 8", "loss must be a number, got 'oh'"),
        SkippedRow("line 9", "it has 5 cells, the header 6"),
    }


def test_the_space_is_inferred_from_the_values(written: Written) -> None:
    planned = plan_import(written(CSV, metrics=["loss"]), directions=["minimize"])
    assert list(planned.space) == [
        Float("lr", 1e-4, 0.1, log=True),
        Int("depth", 3, 8),
        Categorical("opt", ("adam", "sgd")),
    ]
    assert len(planned.accepted) == 4
    assert "ranges are those of the values in the file" in planned.notes
    assert "logarithmic, by their values: lr" in planned.notes


WANDB = """\
"Name","State","Runtime","Sweep","lr","batch_size","_step","val_loss","Created"
"rosy-1","finished","12","s1","0.01","32","100","0.41","2026-01-01"
"cold-2","crashed","3","s1","0.5","64","7","","2026-01-01"
"warm-3","finished","11","s1","0.02","64","100","NaN","2026-01-01"
"""


def test_an_export_of_a_sweep_is_read(written: Written) -> None:
    source = written(WANDB, metrics=["val_loss"])
    assert source.kind == "W&B export"
    assert [trial.ending for trial in source.trials] == ["complete", "failed", "complete"]
    assert source.trials[0].params == {"lr": 0.01, "batch_size": 32}
    assert "_step" in source.notes[0]


def test_a_prefix_tells_hyperparameters_from_the_rest(written: Written) -> None:
    frame = "number,value,params_x,params_y,user_attrs_a,state\n0,1.5,0.1,3,9,COMPLETE\n"
    source = written(frame)
    assert source.metrics == ("value",)
    assert source.trials[0].params == {"x": 0.1, "y": 3}
    nested = [{"config": {"x": 1, "y": "a"}, "summary": {"z": 1}, "score": 2.0}]
    assert written(json.dumps(nested), "past.json").trials[0].params == {"x": 1, "y": "a"}


def test_torn_json_lines_are_skipped(written: Written) -> None:
    source = written('{"x": 1, "loss": 2.0}\n{"x": \n[1]\n', "past.jsonl", metrics=["loss"])
    assert len(source.trials) == 1
    assert [row.where for row in source.skipped] == ["line 2", "line 3"]


def test_columns_can_be_given(written: Written) -> None:
    source = written("a,b,acc,loss\n1,2,0.5,0.7\n", metrics=["loss"], params=["a", "b"])
    assert source.trials[0].params == {"a": 1, "b": 2}
    assert source.notes == ("columns that are not read: acc",)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,loss\n1,2\n", {}, "must have a column value, score or objective for a metric"),
        ("a,loss\n1,2\n", {"metrics": ["los"]}, "must have a column 'los'"),
        (
            "a,loss\n1,2\n",
            {"metrics": ["loss"], "params": ["b"]},
            "for the hyperparameters b; it has a, loss",
        ),
        ("a,loss\n", {}, "holds no trials"),
        ("", {}, "holds no trials"),
        ("[1, 2", {}, "is not valid JSON"),
        ("[1, 2]", {}, "holds no trials"),
    ],
)
def test_an_unreadable_table_is_an_error(
    written: Written, text: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        written(text, **options)


SEVERAL = """\
lr,summary.acc,size,latency_ms,state
0.1,0.8,12,150,finished
0.2,0.9,20,250,finished
0.3,0.7,9,,finished
0.4,,,,crashed
"""


def test_several_metric_columns_are_objectives(written: Written) -> None:
    source = written(SEVERAL, metrics=["acc", "size"], params=["lr"])
    assert source.metrics == ("acc", "size")
    planned = plan_import(source, directions=["maximize", "minimize"])
    assert planned.objectives == (Objective("acc", "maximize"), Objective("size", "minimize"))
    assert [one.metrics for one in planned.accepted] == [
        {"acc": 0.8, "size": 12.0}, {"acc": 0.9, "size": 20.0}, {"acc": 0.7, "size": 9.0}, {},
    ]  # fmt: skip
    with pytest.raises(InputError, match="whether acc is minimized or maximized") as caught:
        plan_import(source)
    assert "--metric acc:minimize" in caught.value.hint
    with pytest.raises(
        InputError, match=r"each of the 2 objectives \(acc, size\) needs a direction; got maximize"
    ):
        plan_import(source, directions=["maximize"])


def test_a_task_names_columns_of_objectives_and_constraints(
    written: Written, make_task: Callable[..., Task]
) -> None:
    task = make_task(
        space=Space([Float("lr", 0.0, 1.0)]),
        objectives=(Objective("size", "minimize"), Objective("acc", "maximize")),
        constraints=(Constraint("latency_ms", max=200.0), Constraint("wall_s", max=9.0)),
    )
    source = written(SEVERAL, task=task)
    planned = plan_import(source, task)
    assert [one.metrics for one in planned.accepted] == [
        {"size": 12.0, "acc": 0.8, "latency_ms": 150.0},
        {"size": 20.0, "acc": 0.9, "latency_ms": 250.0},
        {},
    ]
    assert planned.skipped == (SkippedRow("line 4", "latency_ms must be a number, got None"),)
    with pytest.raises(InputError, match="must have a column 'latency_ms' for a metric"):
        written(SEVERAL.replace("latency_ms", "ms"), task=task)


def test_binary_and_missing_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("x.bin", "nowhere.csv"):
        with pytest.raises(InputError, match="cannot be read"):
            read_source(str(tmp_path / name))


def plan_into(
    space: Space, source: TrialSource, trials: tuple[Trial, ...] = (), **changes: Any
) -> ImportPlan:
    """Return the plan for a study of one objective in a given space."""
    objectives = (Objective(source.metrics[0], "minimize"),)
    task = Task("t", (), objectives, space, **changes)
    return plan_import(source, task, trials)


def test_trials_outside_a_given_space_are_skipped(written: Written) -> None:
    space = Space([Float("lr", 1e-3, 1.0, log=True), Ordinal("batch_size", ("32", "64"))])
    planned = plan_into(space, written(WANDB.replace("0.5", "5.0"), metrics=["val_loss"]))
    assert [one.config for one in planned.accepted] == [
        {"lr": 0.01, "batch_size": "32"},
        {"lr": 0.02, "batch_size": "64"},
    ]
    (row,) = planned.skipped
    assert row.where == "line 3"
    assert "lr must be a number from 1e-3 to 1e0" in row.reason


def test_values_of_inactive_hyperparameters_are_dropped(written: Written) -> None:
    space = Space(
        [
            Categorical("booster", ("tree", "dart")),
            Float("drop", 0.0, 1.0, when={"booster": ("dart",)}),
        ]
    )
    table = "booster,drop,extra,score\ntree,0.5,1,1.0\ndart,0.5,2,2.0\n"
    planned = plan_into(space, written(table))
    assert [one.config for one in planned.accepted] == [
        {"booster": "tree"},
        {"booster": "dart", "drop": 0.5},
    ]
    assert "not in the space, so ignored: extra" in planned.notes


def test_rows_with_another_fixed_value_are_skipped(written: Written) -> None:
    source = written("x,trees,score\n1,300,1.0\n2,500,1.0\n3,,2.0\n4,300.0,3.0\n")
    planned = plan_into(Space([Int("x", 0, 9)]), source, fixed={"trees": 300})
    assert [one.config["x"] for one in planned.accepted] == [1, 3, 4]
    assert planned.skipped == (SkippedRow("line 3", "trees is fixed at 300, got 500"),)
    assert planned.notes == ()


def test_a_configuration_is_accepted_once_preferably_complete(
    written: Written, make_trial: Callable[..., Trial]
) -> None:
    space = Space([Int("x", 0, 9)])
    table = "x,score,state\n1,,failed\n1,5.0,complete\n1,6.0,complete\n2,1.0,complete\n"
    planned = plan_into(space, written(table), (make_trial(0, {"x": 2}, value=1.0),))
    assert [one.source.where for one in planned.accepted] == ["line 3"]
    assert {row.where for row in planned.skipped} == {"line 2", "line 4"}
    assert planned.known == 1


def test_a_constant_column_is_fixed() -> None:
    rows = [{"x": 1, "trees": 300, "momentum": 0.9}, {"x": 2, "trees": 300.0}]
    inferred = infer_space(rows)
    assert inferred.space.names == ("x",)
    assert inferred.fixed == {"trees": 300}
    assert "momentum is ignored: it is 0.9 wherever it is given" in inferred.notes
    with pytest.raises(SpaceError, match="at least two values"):
        infer_space([{"x": 1}, {"x": 1}])


def inferred_parameter(*values: float) -> Parameter:
    return infer_space([{"p": value} for value in values]).space["p"]


DRAWS = np.concatenate([[0.0, 1.0], np.random.default_rng(0).uniform(size=40)])


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1e-4, 1e-1], True),
        ([1e-5, 3e-4, 2e-3, 1e-3, 0.05], True),
        ((10 ** (-5 + 4 * DRAWS)).tolist(), True),
        ([round(10 ** (1 + 2.5 * u)) for u in DRAWS], True),
        ([10, 11, 1000, 300, 3000, 90], True),
        ((1e-3 + DRAWS).tolist(), False),
        ([round(1 + 999 * u) for u in DRAWS], False),
        ([0.005, 0.3, 0.5, 0.62, 0.9], False),
        ([0.01, 0.02, 0.03, 0.8], False),  # less than two orders of magnitude
        ([0.0, 1e-4, 1e-3, 1.0], False),
        ([-1e-4, 1e-4, 1e-3, 1.0], False),
    ],
)
def test_the_scale_is_inferred_from_the_values(values: list[float], log: bool) -> None:
    parameter = inferred_parameter(*values)
    assert isinstance(parameter, Float | Int)
    assert parameter.log is log
    assert (parameter.low, parameter.high) == (min(values), max(values))


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([64, 16, 32, 128, 32], Ordinal("p", (16, 32, 64, 128))),
        ([16.0, 64.0, 512.0], Ordinal("p", (16, 64, 512))),
        ([1, 10, 100, 1000], Ordinal("p", (1, 10, 100, 1000))),
        ([32, 64], Int("p", 32, 64)),
        ([16, 32, 48, 64], Int("p", 16, 64)),
        ([0, 1, 2, 4], Int("p", 0, 4)),
        ([-2, -4, -8], Int("p", -8, -2)),
        ([0.25, 0.5, 1.0], Float("p", 0.25, 1.0)),
    ],
)
def test_integers_that_are_multiples_of_each_other_are_an_ordinal(
    values: list[float], read: Parameter
) -> None:
    assert inferred_parameter(*values) == read


def test_mixed_kinds_are_categorical() -> None:
    space = infer_space([{"depth": 3}, {"depth": "auto"}, {"depth": True}]).space
    assert space["depth"] == Categorical("depth", ("3", "auto", "True"))


values: st.SearchStrategy[Any] = (
    st.integers(-1000, 1000)
    | st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-200)
    | st.booleans()
    | st.sampled_from(["a", "b", "c"])
)


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), values, min_size=1), min_size=2))
def test_an_inferred_space_contains_the_complete_rows(rows: list[Mapping[str, Any]]) -> None:
    from localhpo.importers.plan import _active_params

    try:
        space = infer_space(rows).space
    except SpaceError:
        return
    for row in rows:
        config = _active_params(space, row)
        if all(p.name in config or not space.is_active(p.name, config) for p in space):
            space.canonical(config)
