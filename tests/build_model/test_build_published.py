"""What others published is learned from, but for what tests a model."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from scripts.benchmarks.problems import splits, yahpo
from scripts.build_model import held_out, published

DATA = Path(os.environ.get("LOCALHPO_DATA") or Path(__file__).parents[2].parent / "shared/data")


def table_of(folder: Path, data_sets: list[str]) -> None:
    """Write winners of tuning runs of a network on tables, one for each data set."""
    space = {"lr": ["loguniform", 1e-4, 1e-1], "d": ["int", 1, 9]}
    rows = [
        {"dataset": name, "model": "mlp", "space": space, "best": {"lr": 1e-3, "d": 1 + i}}
        for i, name in enumerate(data_sets)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "tabdl_tuning").mkdir()
    (folder / "tabdl_tuning" / "made.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def portfolio_of(folder: Path, data_sets: list[str]) -> None:
    """Write a portfolio of a forest, one entry for each data set."""
    entries = [
        {"class": "rf", "hyperparameters": {"n_estimators": 10 + i, "max_features": 0.5}}
        for i in range(len(data_sets))
    ]
    (folder / "flaml_default" / "rf").mkdir(parents=True)
    path = folder / "flaml_default" / "rf" / "binary.json"
    path.write_text(json.dumps({"portfolio": entries, "configsource": data_sets}))


def test_every_held_out_data_set_has_a_name_here() -> None:
    table = yahpo.splits()
    ids = {*table["bench"]["settings_data_sets"], *table["bench"]["final_data_sets"]}
    ids |= set(splits.NEVER_TRAIN)
    for family, sides in table["yahpo"]["families"].items():
        ids |= {splits.data_set_id(family, instance) for instance in sides["held_out"]}
    assert ids == {*held_out.NAMES, *held_out.NAMELESS}
    assert all(held_out.NAMES.values())


@pytest.mark.parametrize(
    "name",
    [
        "phoneme", "classif-num-medium-3-phoneme", "lgbm/connect-4", "Connect4", "Fashion-MNIST",
        "xgboost/jungle_chess_2pcs_raw_endgame_complete", "ada_agnostic", "houses", "house_8L",
        "regression-num-medium-0-house_16H", "california_housing", "Wine_Quality",
    ],
)  # fmt: skip
def test_held_out_data_sets_are_known_however_they_are_spelled(name: str) -> None:
    assert held_out.is_held_out(name)


@pytest.mark.parametrize(
    "name", ["adult", "kc1", "Jannis", "covtype2", "analcatdata_supreme", "default", "lgbm/segment"]
)
def test_other_data_sets_are_not(name: str) -> None:
    assert not held_out.is_held_out(name)


def test_winners_on_held_out_data_sets_are_left_out(tmp_path: Path) -> None:
    table_of(tmp_path, ["adult", "classif-num-medium-0-phoneme", "churn", "otto", "california"])
    portfolio_of(tmp_path, ["lgbm/riccardo", "kc1", "houses", "Helena", "Fashion-MNIST", "default"])
    network, forest = published.load(tmp_path)
    assert network.data_sets == ("adult", "churn", "otto")
    assert [config["d"] for config in network.configs] == [1, 3, 4]
    assert forest.data_sets == ("kc1", "Helena", "default")
    assert [config["n_estimators"] for config in forest.configs] == [11, 13, 15]


@pytest.mark.skipif(not (DATA / "flaml_default").is_dir(), reason="needs the public data")
def test_nothing_published_is_of_a_held_out_data_set() -> None:
    found = {name.lower() for winners in published.load(DATA) for name in winners.data_sets}
    assert len(found) > 100
    for part in [
        "phoneme", "connect", "mfeat", "mnist", "cifar", "riccardo", "guillermo", "jungle",
        "christine", "house", "housing", "california", "wine", "iris", "digits", "breast", "wdbc",
        "diabetes", "spambase", "splice", "soybean", "monks", "dmft", "click", "gas-drift",
        "plants", "miceprotein", "okcupid", "pc3", "kc2",
    ]:  # fmt: skip
        assert not [name for name in found if part in name], part
