"""Generates ratings of things by users, and trains two recommenders on them.

Users and things have a few latent factors. Some things are liked by most users, and a few things
are seen by most. So the likes of one user tell something about others, as in real data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.benchmarks.problems.dims import Array

from .learners import Split
from .optimizers import make_optimizer

PASSES, PATIENCE = 20, 2
"""Largest number of epochs of DeepFM, and epochs without improvement after which it stops."""

NEAREST = 10
"""Length of the list that a recommender is measured by."""


@dataclass(frozen=True)
class Likes:
    """The things that each user liked, split in two."""

    users: int
    things: int
    train: Array
    """(2, likes): user and thing."""
    valid: Array
    """(2, likes): other likes of the same users."""


def _traits(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the utility of each thing for each user (users, things), and how often it is seen."""
    users, things = int(rng.integers(150, 400)), int(rng.integers(100, 250))
    traits = int(rng.integers(2, 8))
    taste, nature = rng.normal(size=(users, traits)), rng.normal(size=(things, traits))
    value = taste @ nature.T / np.sqrt(traits) * rng.uniform(0.6, 1.6)
    value += rng.normal(0.0, rng.uniform(0.2, 0.8), users)[:, None]
    value += rng.normal(0.0, rng.uniform(0.3, 1.0), things)
    seen = rng.pareto(rng.uniform(1.0, 3.0), things) + 0.3
    return value, seen / seen.sum()


def make_clicks(kind: str, rng: np.random.Generator) -> tuple[Split, str]:
    """Return random ratings of users and things with a few attributes, and their description.

    Features are integers, one column per attribute; no two columns share a number.
    """
    del kind
    value, seen = _traits(rng)
    users, things = value.shape
    groups = [rng.integers(int(rng.integers(2, 21)), size=users) for _ in range(2)]
    groups += [rng.integers(int(rng.integers(2, 21)), size=things) for _ in range(2)]
    for i, group in enumerate(groups):  # attributes have a small effect
        effect = rng.normal(0.0, rng.uniform(0.1, 0.5), group.max() + 1)[group]
        value = value + (effect[:, None] if i < 2 else effect)
    rows = round(float(np.exp(rng.uniform(np.log(5e3), np.log(1.2e4)))))
    user, thing = rng.integers(users, size=rows), rng.choice(things, rows, p=seen)
    user, thing = np.unique([user, thing], axis=1)
    share = 1.0 / (1.0 + np.exp(-value[user, thing] - rng.uniform(-0.8, 0.8)))
    y = (rng.uniform(size=len(user)) < share).astype(int)
    columns = [user, thing, groups[0][user], groups[1][user], groups[2][thing], groups[3][thing]]
    first = np.cumsum([0, *(int(column.max()) + 1 for column in columns[:-1])])
    x = np.stack(columns, axis=1) + first
    order = rng.permutation(len(y))
    train, valid = order[: int(0.8 * len(y))], order[int(0.8 * len(y)) :]
    text = f"{len(y)} ratings by {users} users of {things} things"
    return Split(x[train], y[train], x[valid], y[valid], 2), text


def make_likes(kind: str, rng: np.random.Generator) -> tuple[Likes, str]:
    """Return random likes, and their description."""
    del kind
    value, seen = _traits(rng)
    users, things = value.shape
    each = rng.uniform(8.0, 20.0)
    train, valid = [], []
    for user in range(users):
        # Gumbel noise draws without replacement, by utility and by how often a thing is seen.
        drawn = np.argsort(-(2.0 * value[user] + np.log(seen) + rng.gumbel(size=things)))
        liked = rng.permutation(drawn[: max(5, int(rng.poisson(each)))])
        cut = max(1, len(liked) // 5)
        valid += [(user, int(thing)) for thing in liked[:cut]]
        train += [(user, int(thing)) for thing in liked[cut:]]
    text = f"{len(train)} likes of {things} things by {users} users"
    return Likes(users, things, np.array(train).T, np.array(valid).T), text


def fit_clicks(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    """Train DeepFM with early stopping; return the class probabilities of its best epoch."""
    import torch
    from sklearn.metrics import roc_auc_score

    class DeepFM(torch.nn.Module):
        """Guo et al. 2017, https://arxiv.org/abs/1703.04247."""

        def __init__(self, values: int, columns: int) -> None:
            super().__init__()
            self.weight = torch.nn.Embedding(values, 1)
            self.embedding = torch.nn.Embedding(values, config["embedding_size"])
            torch.nn.init.normal_(self.weight.weight, std=0.01)
            torch.nn.init.normal_(self.embedding.weight, std=0.01)
            layers: list[torch.nn.Module] = []
            inputs = columns * config["embedding_size"]
            for _ in range(config["num_mlp_layers"]):
                layers += [torch.nn.Linear(inputs, config["mlp_hidden_size"]), torch.nn.ReLU()]
                layers += [torch.nn.Dropout(config["dropout_prob"])]
                inputs = config["mlp_hidden_size"]
            self.perceptron = torch.nn.Sequential(*layers, torch.nn.Linear(inputs, 1))

        def forward(self, x: Any) -> Any:
            e = self.embedding(x)
            pairs = 0.5 * (e.sum(1) ** 2 - (e**2).sum(1)).sum(1)
            return self.weight(x).sum((1, 2)) + pairs + self.perceptron(e.flatten(1))[:, 0]

    torch.manual_seed(seed)
    x, y = torch.as_tensor(data.x), torch.as_tensor(data.y, dtype=torch.float32)
    x_valid = torch.as_tensor(data.x_valid)
    values = int(max(data.x.max(), data.x_valid.max())) + 1
    model = DeepFM(values, data.x.shape[1])
    steps, loss_of = make_optimizer(config, model), torch.nn.BCEWithLogitsLoss()
    best, share, since = -np.inf, np.full(len(data.y_valid), np.nan), 0
    for _ in range(PASSES):
        model.train()
        for batch in torch.randperm(len(x)).split(config["batch_size"]):
            steps.zero_grad()
            loss_of(model(x[batch]), y[batch]).backward()
            steps.step()
        model.eval()
        with torch.no_grad():
            found = np.asarray(model(x_valid).sigmoid())
        if not np.all(np.isfinite(found)):
            break
        gained = float(roc_auc_score(data.y_valid, found))
        if gained > best:
            best, share, since = gained, found, 0
        else:
            since += 1
        if since >= PATIENCE:
            break
    return np.stack([1.0 - share, share], axis=1)


def fit_likes(config: Mapping[str, Any], data: Likes, seed: int) -> Array:
    """Train LightGCN; return the score of each thing for each user."""
    import torch

    torch.manual_seed(seed)
    user, thing = torch.as_tensor(data.train)
    thing = thing + data.users
    spread = torch.as_tensor(_propagation_matrix(data, config["num_layers"]), dtype=torch.float32)
    model = torch.nn.Embedding(len(spread), config["embedding_size"])
    torch.nn.init.xavier_uniform_(model.weight)
    # The penalty is on the embeddings of a batch, not on all weights.
    steps = make_optimizer({**config, "reg_weight": 0.0}, model)
    for _ in range(config["epochs"]):
        for batch in torch.randperm(len(user)).split(config["batch_size"]):
            steps.zero_grad()
            other = torch.randint(data.users, len(spread), (len(batch),))
            nodes = torch.stack([user[batch], thing[batch], other])
            a, b, c = (spread @ model.weight)[nodes]
            loss = torch.nn.functional.softplus((a * c).sum(1) - (a * b).sum(1)).mean()
            penalty = model.weight[nodes].pow(2).sum() / len(batch) / 2
            (loss + config["reg_weight"] * penalty).backward()
            steps.step()
    with torch.no_grad():
        found = spread @ model.weight
        return np.asarray(found[: data.users] @ found[data.users :].T)


def _propagation_matrix(data: Likes, layers: int) -> Array:
    """Return the matrix that applies all layers at once (nodes, nodes).

    It is the mean of the powers of the normalized graph (He et al. 2020,
    https://arxiv.org/abs/2002.02126), which is small here.
    """
    graph = np.zeros((data.users + data.things,) * 2)
    graph[data.train[0], data.train[1] + data.users] = 1.0
    graph += graph.T
    scale = 1.0 / np.sqrt(np.maximum(graph.sum(axis=0), 1.0))
    graph *= scale[:, None] * scale
    power = mean = np.eye(len(graph))
    for _ in range(layers):
        power = graph @ power
        mean = mean + power
    return np.asarray(mean / (layers + 1))


def measure_likes(predicted: Array, data: Likes) -> dict[str, float]:
    """Return the quality of the first `NEAREST` things that each user has not liked before."""
    scores = predicted.copy()
    scores[data.train[0], data.train[1]] = -np.inf
    order = np.argsort(-scores, axis=1)[:, :NEAREST]
    wanted = np.zeros(scores.shape, dtype=bool)
    wanted[data.valid[0], data.valid[1]] = True
    hits = np.take_along_axis(wanted, order, axis=1)
    count = wanted.sum(axis=1)
    worth = 1.0 / np.log2(np.arange(2, NEAREST + 2))
    most = np.cumsum(worth)[np.minimum(count, NEAREST) - 1]
    return {
        f"ndcg{NEAREST}": float(np.mean((hits * worth).sum(axis=1) / most)),
        f"recall{NEAREST}": float(np.mean(hits.sum(axis=1) / count)),
    }
