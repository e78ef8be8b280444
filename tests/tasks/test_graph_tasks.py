"""Cora and PubMed, each trained as a study trains it: on made graphs, and on the real ones.

Importing the libraries takes each trial some seconds.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from localhpo.trial import State

pytest.importorskip("torch_geometric")
pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow

NODES, CLASSES, WORDS = 900, 3, 24
LABELED, TESTED = 30, 100
GCN = {"learning_rate": 0.05, "epochs": 60, "num_layers": 2, "dropout": 0.2}


def make_graph(folder: Path, name: str) -> Path:
    """Write a graph in the layout of Planetoid: nodes of one class share words and edges."""
    draw = np.random.default_rng(0)
    classes = np.arange(NODES) % CLASSES
    words = (draw.random((NODES, WORDS)) < 0.1) | (np.arange(WORDS) % CLASSES == classes[:, None])
    graph: dict[int, list[int]] = {node: [] for node in range(NODES)}
    for node in range(NODES):
        for other in draw.choice(np.flatnonzero(classes == classes[node]), 2):
            graph[node].append(int(other))
            graph[int(other)].append(node)
    x, y = sparse.csr_matrix(words.astype(np.float32)), np.eye(CLASSES)[classes]
    rest = NODES - TESTED
    parts = {
        "x": x[:LABELED], "y": y[:LABELED], "tx": x[rest:], "ty": y[rest:],
        "allx": x[:rest], "ally": y[:rest], "graph": graph,
    }  # fmt: skip
    folder.mkdir(parents=True)
    for part, value in parts.items():
        (folder / f"ind.{name}.{part}").write_bytes(pickle.dumps(value))
    numbers = draw.permutation(np.arange(rest, NODES))
    (folder / f"ind.{name}.test.index").write_text("\n".join(map(str, numbers)) + "\n")
    return folder.parent


def compress(file: Path) -> None:
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()


def test_cora_learns_from_files_some_of_which_are_compressed(
    run_task: Callable, tmp_path: Path
) -> None:
    place = make_graph(tmp_path / "data" / "cora", "cora")
    for part in ("allx", "graph", "test.index"):
        compress(place / "cora" / f"ind.cora.{part}")
    outcome, reported = run_task("cora-gcn", place, "--small", **GCN)
    assert outcome.state is State.COMPLETE, outcome
    names = {"val_accuracy", "train_accuracy", "train_loss", "test_accuracy"}
    assert {m.name for m in reported} == names
    assert [m.step for m in reported if m.name == "val_accuracy"] == [5, 6]
    assert outcome.value > 0.6, "a class is a third"


def test_pubmed_learns(run_task: Callable, tmp_path: Path) -> None:
    place = make_graph(tmp_path / "data" / "pubmed", "pubmed")
    outcome, reported = run_task("pubmed-vgae", place, "--small", learning_rate=0.05)
    assert outcome.state is State.COMPLETE, outcome
    assert {m.name for m in reported} == {"val_auc", "train_loss", "test_auc"}
    assert outcome.value > 0.6


def test_real_cora(run_task: Callable, public_data: Callable) -> None:
    config = {**GCN, "learning_rate": 0.01, "hidden_size": 16, "weight_decay": 5e-4}
    outcome, reported = run_task("cora-gcn", public_data("planetoid"), **config)
    assert outcome.value > 0.75
    assert next(m.value for m in reported if m.name == "test_accuracy") > 0.77


def test_citeseer_in_the_place_of_pubmed(run_task: Callable, public_data: Callable) -> None:
    words = ("--dataset", "citeseer")
    outcome, _ = run_task("pubmed-vgae", public_data("planetoid"), *words, epochs=40)
    assert outcome.value > 0.82


def test_the_part_of_pubmed(run_task: Callable, public_data: Callable) -> None:
    words = ("--dataset", "pubmed-partial")
    outcome, _ = run_task("pubmed-vgae", public_data("planetoid"), *words, epochs=10)
    assert outcome.value > 0.8
