"""Generates graphs, and trains a network that classifies their nodes.

A graph resembles a citation network: each class has its own words beside common ones, few nodes
have many links, and most links stay within a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.benchmarks.problems.dims import Array

from .optimizers import make_optimizer

ACTIVATIONS = ("relu", "elu", "silu", "tanh")


@dataclass(frozen=True)
class Graph:
    """A graph with features and classes."""

    x: Array
    """(nodes, words)"""
    edges: Array
    """(2, edges): each edge in both directions."""
    labels: Array
    """(nodes,)"""
    classes: int
    train: Array
    """Nodes of the training set."""
    valid: Array
    """Nodes of the validation set."""

    @property
    def y_valid(self) -> Array:
        """Classes of the validation nodes."""
        return np.asarray(self.labels[self.valid])


def make(kind: str, rng: np.random.Generator) -> tuple[Graph, str]:
    """Return a random graph whose nodes are to be classified, and its description."""
    del kind
    x, pairs, labels = _draw_graph(rng)
    classes = int(labels.max()) + 1
    order = rng.permutation(len(labels))
    each = int(rng.integers(5, 31))
    known = np.concatenate([order[labels[order] == c][:each] for c in range(classes)])
    rest = order[~np.isin(order, known)]
    text = f"a graph of {len(x)} nodes, {classes} classes, {each} labels per class"
    graph = Graph(
        x=x, edges=_both_ways(pairs), labels=labels, classes=classes,
        train=known, valid=rest[: min(500, len(rest) // 2)],
    )  # fmt: skip
    return graph, text


def _draw_graph(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return features (nodes, words), pairs (2, edges; first < second) and classes (nodes,)."""
    nodes = round(float(np.exp(rng.uniform(np.log(500), np.log(1600)))))
    words = round(float(np.exp(rng.uniform(np.log(100), np.log(600)))))
    classes = int(rng.integers(3, 9))
    # Each class consists of fields, whose nodes are often linked.
    fields = max(2 * classes, round(nodes / rng.uniform(10.0, 40.0)))
    class_of = np.concatenate([np.arange(classes), rng.integers(classes, size=fields - classes)])
    field = rng.choice(fields, nodes, p=rng.dirichlet([2.0] * fields))
    field[:classes] = np.arange(classes)  # no class is empty
    labels = class_of[field]
    common = rng.dirichlet([0.3] * words)
    own = 0.5 * rng.dirichlet([0.1] * words, classes)[class_of]
    own += 0.5 * rng.dirichlet([0.1] * words, fields)
    share, length = rng.uniform(0.05, 0.25), rng.uniform(8.0, 40.0)
    expected = length * (share * own[field] + (1.0 - share) * common)
    x = (rng.uniform(size=expected.shape) < 1.0 - np.exp(-expected)).astype(np.float32)
    if rng.uniform() < 0.75:  # row normalization, as is usual
        x /= np.maximum(x.sum(axis=1, keepdims=True), 1.0)
    weight = rng.pareto(rng.uniform(1.5, 4.0), nodes) + 0.5
    count, near = round(nodes * rng.uniform(1.2, 3.0)), rng.uniform(0.5, 0.9)
    first = rng.choice(nodes, count, p=weight / weight.sum())
    second = rng.choice(nodes, count, p=weight / weight.sum())
    manner = rng.uniform(size=count)
    for group, is_near in ((labels, manner < near), (field, manner < near * rng.uniform(0.5, 1.0))):
        for own_group in range(int(group.max()) + 1):
            place = np.flatnonzero((group[first] == own_group) & is_near)
            alike = np.flatnonzero(group == own_group)
            if len(place):
                share_of = weight[alike] / weight[alike].sum()
                second[place] = rng.choice(alike, len(place), p=share_of)
    pairs = np.unique(np.sort([first, second], axis=0), axis=1)
    return x, pairs[:, pairs[0] != pairs[1]], labels


def _both_ways(pairs: Array) -> Array:
    return np.concatenate([pairs, pairs[::-1]], axis=1)


def fit(config: Mapping[str, Any], data: Graph, seed: int) -> Array:
    """Train a graph convolutional network; return class probabilities of the validation nodes."""
    import torch
    from torch_geometric.nn.models import GCN

    torch.manual_seed(seed)
    x, edges = torch.as_tensor(data.x), torch.as_tensor(data.edges)
    train, y = torch.as_tensor(data.train), torch.as_tensor(data.labels[data.train])
    model = GCN(
        x.shape[1], config["hidden_size"], config["num_layers"], data.classes,
        dropout=config["dropout"], act=config["activation"], cached=True,
    )  # fmt: skip
    steps = make_optimizer(config, model)
    for _ in range(config["epochs"]):
        model.train()
        steps.zero_grad()
        out = model(torch.nn.functional.dropout(x, config["dropout"]), edges)
        torch.nn.functional.cross_entropy(out[train], y).backward()
        steps.step()
    model.eval()
    with torch.no_grad():
        return np.asarray(model(x, edges)[data.valid].softmax(-1))
