"""Networks on graphs, ratings, pictures and sequences: their data, and what learns on them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localhpo import tasks
from localhpo.creator import meta_data as creator_meta_data
from localhpo.errors import InputError
from localhpo.llm.models.description import META_DATA
from localhpo.task import load_task
from localhpo.transfer import similarity
from localhpo.transfer import source_tasks as file
from scripts.benchmarks.problems.surrogates import full_space
from scripts.build_model import (
    corpus,
    designs,
    graphs,
    meta_data,
    networks,
    problems,
    ratings,
    trainings,
)
from scripts.build_model.learners import Learner

GOOD: dict[str, dict[str, Any]] = {
    "gcn": {
        "num_layers": 2, "learning_rate": 1e-2, "optimizer": "adam", "epochs": 60,
        "hidden_size": 32, "activation": "relu", "weight_decay": 1e-4, "dropout": 0.3,
    },
    "deepfm": {
        "embedding_size": 8, "learning_rate": 3e-3, "optimizer": "adam", "reg_weight": 1e-5,
        "dropout_prob": 0.1, "batch_size": 256, "mlp_hidden_size": 32, "num_mlp_layers": 1,
    },
    "lightgcn": {
        "embedding_size": 16, "learning_rate": 1e-2, "optimizer": "adam", "reg_weight": 1e-5,
        "batch_size": 1024, "epochs": 60, "num_layers": 2,
    },
    "cnn": {
        "optimizer": "adam", "learning_rate": 1e-2, "weight_decay": 1e-6, "dropout": 0.1,
        "batch_size": 64, "epochs": 8,
    },
    "transformer": {
        "learning_rate": 5e-3, "num_layers": 1, "d_model": 32, "dropout": 0.1, "batch_size": 32,
        "epochs": 8, "warmup_ratio": 0.1, "activation": "gelu", "weight_decay": 1e-4,
    },
}  # fmt: skip
"""A configuration that learns, for each."""

MAIN = {"deepfm": "auc", "lightgcn": "ndcg10"}
"""By what it is judged; by default accuracy."""


def named(name: str) -> Learner:
    return next(learner for learner in networks.NETWORKS if learner.name == name)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_configuration_learns_and_an_idle_one_does_not(name: str) -> None:
    learner = named(name)
    data, text = trainings.data_set(learner, learner.tasks[0], 5)
    assert text
    good = trainings.evaluate(learner, GOOD[name], data, 1)
    assert good == pytest.approx(trainings.evaluate(learner, GOOD[name], data, 1), abs=1e-4)
    idle = trainings.evaluate(
        learner, {**GOOD[name], "learning_rate": 1e-9, "weight_decay": 0.0}, data, 1
    )
    metric = MAIN.get(name, "accuracy")
    assert good[metric] > idle[metric] + 0.05
    assert all(0.0 <= value <= 1.0 for key, value in good.items() if key != "logloss")


@pytest.mark.parametrize("name", GOOD)
def test_the_full_space_is_what_is_trained(name: str) -> None:
    learner = named(name)
    drawn = set(trainings.draw(learner, np.random.default_rng(0)))
    assert drawn - {"momentum"} == set(GOOD[name])


def space_similarity(task_name: str, learner: Learner) -> float:
    """Return the similarity of the spaces of a ready task and of a network."""
    task = load_task(tasks.find(task_name))
    other = dataclasses.replace(task, space=full_space(learner.dims), fixed={})
    return similarity(task, other).value


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("cora-gcn", "gcn"), ("movielens-deepfm", "deepfm"),
        ("movielens-lightgcn", "lightgcn"), ("cifar10-resnet", "cnn"), ("cityscapes-enet", "cnn"),
    ],
)  # fmt: skip
def test_ready_tasks_are_most_similar_to_the_network_of_their_kind(task: str, name: str) -> None:
    nearest = max(networks.NETWORKS, key=lambda learner: space_similarity(task, learner))
    assert nearest.name == name
    assert space_similarity(task, nearest) >= creator_meta_data.MIN_SPACE_SIMILARITY


@pytest.mark.parametrize("task", ["sst2-distilbert", "ecommerce-distilbert", "opus-t5"])
def test_no_network_is_similar_to_tasks_of_fine_tuning(task: str) -> None:
    assert (
        max(space_similarity(task, learner) for learner in networks.NETWORKS)
        < creator_meta_data.MIN_SPACE_SIMILARITY
    )


@pytest.mark.parametrize("name", ["cnn", "deepfm", "lightgcn", "gcn"])
def test_a_training_that_diverges_has_no_metrics(name: str) -> None:
    learner = named(name)
    data, _ = trainings.data_set(learner, learner.tasks[0], 5)
    config = {**GOOD[name], "optimizer": "sgd", "momentum": 0.99, "learning_rate": 1e38}
    assert trainings.evaluate(learner, config, data, 1) == {}


@pytest.mark.parametrize("seed", range(3))
def test_validation_nodes_are_not_in_the_training_set(seed: int) -> None:
    graph, _ = graphs.make("nodes", np.random.default_rng(seed))
    assert not set(graph.train) & set(graph.valid)
    assert set(graph.labels[graph.train]) == set(range(graph.classes))
    assert len(graph.valid) >= 150
    ways = {tuple(edge) for edge in graph.edges.T}
    assert ways == {(b, a) for a, b in ways}
    assert all(a != b for a, b in ways)


def test_a_ranking_by_the_validation_set_is_perfect() -> None:
    likes, _ = ratings.make_likes("likes", np.random.default_rng(1))
    train, valid = ({(int(u), int(t)) for u, t in part.T} for part in (likes.train, likes.valid))
    assert not train & valid
    scores = np.zeros((likes.users, likes.things))
    scores[likes.train[0], likes.train[1]] = 2.0  # what is known already does not count
    scores[likes.valid[0], likes.valid[1]] = 1.0
    found = ratings.measure_likes(scores, likes)
    assert found["ndcg10"] == pytest.approx(1.0)
    assert found["recall10"] == pytest.approx(1.0, abs=0.02)
    assert ratings.measure_likes(-scores, likes)["ndcg10"] < 0.2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small design of one network, trained on three data sets."""
    monkeypatch.setattr(designs, "NETWORK_DRAWN", 16)
    monkeypatch.setattr(designs, "NETWORK_EACH", 2)
    monkeypatch.setattr(ratings, "PASSES", 1)
    monkeypatch.setattr(meta_data, "META_DATA_NETWORKS", {"deepfm"})
    designs.open_network_design(named("deepfm"), tmp_path, range(3)).grow((), None, 0)
    return tmp_path


@pytest.mark.slow
def test_the_design_of_a_network_becomes_source_tasks_and_questions(folder: Path) -> None:
    path = folder / "design-deepfm-clicks.json"
    kept = json.loads(path.read_text())
    assert len(kept["configs"]) == 16 + 2 * designs.NETWORK_ROUNDS
    assert {len(scores) for scores in kept["scores"].values()} == {len(kept["configs"])}
    before = path.stat().st_mtime_ns
    designs.open_network_design(named("deepfm"), folder, range(3)).grow(
        (), None, 0
    )  # nothing is trained twice
    assert path.stat().st_mtime_ns == before
    sources = corpus.Sources(folder, folder / "trainings.jsonl", ("network",))
    count = meta_data.write_meta_data(sources, folder / META_DATA, seed=1)
    found = file.read_source_tasks(folder / META_DATA)
    assert len(found) == count > 2
    auc = next(source_task for source_task in found if source_task.task.metric == "auc")
    assert auc.task.name == "deepfm" and auc.task.direction == "maximize"
    assert len(auc.configs) == len(kept["configs"])
    for seed, regrets in zip(auc.data_sets, auc.regrets, strict=True):
        scores = [row.get("auc", -1.0) for row in kept["scores"][seed]]
        assert regrets[int(np.argmax(scores))] == 0.0
    kept["scores"].popitem()
    kept["scores"]["1"].pop()
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="is not complete"):
        meta_data.write_meta_data(sources, folder / "others.json.gz", seed=1)
    questions = list(corpus.QuestionGenerator(sources, np.random.default_rng(0)).questions(6))
    assert questions and all(q.source.startswith("deepfm/") for q in questions)


def test_a_design_is_of_the_metrics_that_all_data_sets_have(tmp_path: Path) -> None:
    learner = named("transformer")
    scores = {
        "1": [{"accuracy": 0.5, "f1": 0.1}, {}],
        "2": [{"accuracy": 0.4, "f1_macro": 0.2}] * 2,
    }
    path = trainings.design_path(tmp_path, learner, "sequences")
    rng = np.random.default_rng(0)
    configs = [trainings.draw(learner, rng) for _ in range(2)]
    path.write_text(json.dumps({"configs": configs, "scores": scores}))
    design = designs.open_network_design(learner, tmp_path, [1, 2])
    assert design.metrics() == ["accuracy"] and not design.is_complete()


def test_peers_are_those_that_have_the_metric() -> None:
    learner = named("cnn")
    rng = np.random.default_rng(0)

    def record(seed: int, *metrics: str) -> dict[str, Any]:
        configs = [trainings.draw(learner, rng) for _ in range(20)]
        scores = [{metric: float(c["learning_rate"]) for metric in metrics} for c in configs]
        return {
            "learner": "cnn", "kind": "pictures", "seed": seed, "text": "", "configs": configs,
            "scores": scores,
        }  # fmt: skip

    records = [record(900_001, "f1"), record(900_002, "f1_macro"), record(900_003, "f1")]
    problem = problems.from_training(records, 0, rng)
    assert problem is not None
    assert problem.utilities([problem.space.sample(rng)]).shape == (2, 1)


def test_networks_that_were_not_trained_are_no_source(tmp_path: Path) -> None:
    sources = corpus.Sources(tmp_path, tmp_path / "trainings.jsonl", ("network",))
    with pytest.raises(InputError, match="no network was trained") as error:
        corpus.check(sources)
    assert "train-data" in str(error.value.hint)
