"""Graphs that this file generates, and the two networks on them: classes of nodes, and links.

A graph is made as a network of citations looks: classes, each with words of its own beside those
that all use; few nodes that are linked often, and links that mostly stay within a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.bench.problems.dims import Array

from .optimizers import optimizer

ACTIVATIONS = ("relu", "elu", "silu", "tanh")


@dataclass(frozen=True)
class Graph:
    """A graph with features and classes."""

    x: Array
    """(nodes, words)"""
    edges: Array
    """(2, edges): each in both directions."""
    labels: Array
    """(nodes,)"""
    classes: int
    train: Array
    """Nodes whose class is known."""
    valid: Array
    """Nodes that are asked for."""

    @property
    def y_valid(self) -> Array:
        """The classes that are asked for."""
        return np.asarray(self.labels[self.valid])


@dataclass(frozen=True)
class Links:
    """A graph of which some edges are hidden."""

    x: Array
    """(nodes, words)"""
    edges: Array
    """(2, edges) that are known: each in both directions."""
    pairs: Array
    """(2, pairs) that are asked for: half of them hidden edges, half no edges."""
    y_valid: Array
    """(pairs,): 1 for an edge."""


def make(kind: str, rng: np.random.Generator) -> tuple[Graph, str]:
    """Return a graph whose nodes are to be classified, and its description."""
    del kind
    x, pairs, labels = _drawn(rng)
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


def make_links(kind: str, rng: np.random.Generator) -> tuple[Links, str]:
    """Return a graph whose hidden edges are to be told from no edges, and its description."""
    del kind
    x, pairs, _ = _drawn(rng, closed=float(rng.uniform(0.5, 2.0)))
    hidden = rng.permutation(len(pairs[0])) < max(50, len(pairs[0]) // 10)
    linked = {(int(a), int(b)) for a, b in pairs.T}
    strange: list[tuple[int, int]] = []
    while len(strange) < hidden.sum():
        a, b = sorted(map(int, rng.integers(len(x), size=2)))
        if a != b and (a, b) not in linked:
            strange.append((a, b))
    text = f"a graph of {len(x)} nodes and {len(pairs[0])} links"
    asked = np.concatenate([pairs[:, hidden], np.array(strange).T], axis=1)
    truth = np.repeat([1, 0], [int(hidden.sum()), len(strange)])
    return Links(x=x, edges=_both_ways(pairs[:, ~hidden]), pairs=asked, y_valid=truth), text


def _drawn(rng: np.random.Generator, closed: float = 0.0) -> tuple[Array, Array, Array]:
    """Return features (nodes, words), pairs (2, edges; first < second) and classes (nodes,).

    Args:
        rng: the source of every choice.
        closed: links between nodes that are linked with one node, per other link: without them
            nothing but its class tells where a hidden link is.
    """
    nodes = round(float(np.exp(rng.uniform(np.log(500), np.log(1600)))))
    words = round(float(np.exp(rng.uniform(np.log(100), np.log(600)))))
    if closed:
        # An auto-encoder learns from links alone. With many words that say little it is best not
        # trained at all, which is not so on graphs from life: here they are few and say more.
        words = words // 3 + 30
    classes = int(rng.integers(3, 9))
    # Fields of their own within each class, whose nodes know each other.
    fields = max(2 * classes, round(nodes / rng.uniform(10.0, 40.0)))
    class_of = np.concatenate([np.arange(classes), rng.integers(classes, size=fields - classes)])
    field = rng.choice(fields, nodes, p=rng.dirichlet([2.0] * fields))
    field[:classes] = np.arange(classes)  # no class is empty
    labels = class_of[field]
    common = rng.dirichlet([0.3] * words)
    own = 0.5 * rng.dirichlet([0.1] * words, classes)[class_of]
    own += 0.5 * rng.dirichlet([0.1] * words, fields)
    share, length = rng.uniform(0.05, 0.25), rng.uniform(8.0, 40.0)
    if closed:
        share += 0.3
    expected = length * (share * own[field] + (1.0 - share) * common)
    x = (rng.uniform(size=expected.shape) < 1.0 - np.exp(-expected)).astype(np.float32)
    if rng.uniform() < 0.75:  # as is usual; the others are left as counts are
        x /= np.maximum(x.sum(axis=1, keepdims=True), 1.0)
    weight = rng.pareto(rng.uniform(1.5, 4.0), nodes) + 0.5
    count = round(nodes * rng.uniform(1.2, 3.0))
    near = rng.uniform(0.75, 0.95) if closed else rng.uniform(0.5, 0.9)
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
    near_of = {n: second[first == n] for n in range(nodes)} if closed else {}
    for through in rng.choice(first, round(closed * count)):
        if len(near_of[through]) > 1:
            a, b = rng.choice(near_of[through], 2, replace=False)
            first, second = np.append(first, a), np.append(second, b)
    pairs = np.unique(np.sort([first, second], axis=0), axis=1)
    return x, pairs[:, pairs[0] != pairs[1]], labels


def _both_ways(pairs: Array) -> Array:
    return np.concatenate([pairs, pairs[::-1]], axis=1)


def fit_classes(config: Mapping[str, Any], data: Graph, seed: int) -> Array:
    """Train a graph convolutional network; return the class shares of what is asked for."""
    import torch
    from torch_geometric.nn.models import GCN

    torch.manual_seed(seed)
    x, edges = torch.as_tensor(data.x), torch.as_tensor(data.edges)
    train, y = torch.as_tensor(data.train), torch.as_tensor(data.labels[data.train])
    model = GCN(
        x.shape[1], config["hidden_size"], config["num_layers"], data.classes,
        dropout=config["dropout"], act=config["activation"], cached=True,
    )  # fmt: skip
    steps = optimizer(config, model)
    for _ in range(config["epochs"]):
        model.train()
        steps.zero_grad()
        out = model(torch.nn.functional.dropout(x, config["dropout"]), edges)
        torch.nn.functional.cross_entropy(out[train], y).backward()
        steps.step()
    model.eval()
    with torch.no_grad():
        return np.asarray(model(x, edges)[data.valid].softmax(-1))


def fit_links(config: Mapping[str, Any], data: Links, seed: int) -> Array:
    """Train a variational graph auto-encoder; return the score of each pair."""
    import torch
    from torch_geometric import seed_everything
    from torch_geometric.nn.models import GCN, VGAE

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = GCN(
                data.x.shape[1], config["hidden_channels"], config["num_layers"],
                2 * config["out_channels"], dropout=config["dropout"], act=config["activation"],
                cached=True,
            )  # fmt: skip

        def forward(self, x: Any, edges: Any) -> Any:
            return self.layers(x, edges).chunk(2, dim=1)

    seed_everything(seed)
    x, edges = torch.as_tensor(data.x), torch.as_tensor(data.edges)
    model = VGAE(Encoder())
    steps = optimizer(config, model)
    known = edges[:, : edges.shape[1] // 2]
    for _ in range(config["epochs"]):
        model.train()
        steps.zero_grad()
        z = model.encode(x, edges)
        (model.recon_loss(z, known) + model.kl_loss() / len(x)).backward()
        steps.step()
    model.eval()
    with torch.no_grad():
        z = model.encode(x, edges)
        return np.asarray(model.decode(z, torch.as_tensor(data.pairs)))


def measure_links(predicted: Array, data: Links) -> dict[str, float]:
    """Return how well hidden edges are told from no edges."""
    from sklearn import metrics

    return {
        "auc": float(metrics.roc_auc_score(data.y_valid, predicted)),
        "average_precision": float(metrics.average_precision_score(data.y_valid, predicted)),
    }
