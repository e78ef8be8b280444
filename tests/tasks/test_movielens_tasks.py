"""LightGCN and DeepFM, trained on small files in the layout of MovieLens-1M.

Importing the libraries takes each trial some seconds.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from localhpo import tasks
from localhpo.trial import Cause, State

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")
pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow

USERS, MOVIES = 80, 60
GENRES = ("Action", "Comedy")


def make_ratings(place: Path) -> Path:
    """Write users, movies and ratings: half of the users like one genre, half the other."""
    draw = random.Random(0)
    folder = place / "ml-1m"
    folder.mkdir(parents=True)
    movies = [f"{m}::Café {m} ({1990 + m % 20})::{GENRES[m % 2]}" for m in range(1, MOVIES + 1)]
    users = [f"{u}::{'FM'[u % 2]}::25::{u % 21}::{55100 + u}" for u in range(1, USERS + 1)]
    ratings = []
    for user in range(1, USERS + 1):
        for movie in draw.sample(range(1, MOVIES + 1), 30):
            stars = 5 if (user + movie) % 2 == 0 else 2
            ratings.append(f"{user}::{movie}::{stars}::978300760")
    for name, lines in (("users", users), ("movies", movies), ("ratings", ratings)):
        (folder / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return place


def script_of(name: str) -> ModuleType:
    path = tasks.find(name).with_name("train.py")
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lightgcn_learns_who_likes_what(run_task: Callable, tmp_path: Path) -> None:
    config = {"learning_rate": 0.1, "embedding_size": 16, "batch_size": 512, "num_layers": 2}
    outcome, reported = run_task("movielens-lightgcn", make_ratings(tmp_path), "--small", **config)
    assert outcome.state is State.COMPLETE, outcome
    assert {m.name for m in reported} == {"val_ndcg10", "train_loss", "test_ndcg10"}
    assert outcome.value > 0.1


def test_deepfm_learns_who_likes_what(run_task: Callable, tmp_path: Path) -> None:
    config = {"learning_rate": 0.01, "embedding_size": 16, "batch_size": 256}
    outcome, reported = run_task("movielens-deepfm", make_ratings(tmp_path), "--small", **config)
    assert outcome.state is State.COMPLETE, outcome
    assert {m.name for m in reported} == {"val_auc", "val_logloss", "train_loss", "test_auc"}
    assert outcome.value > 0.8


def test_deepfm_that_diverges_says_so(run_task: Callable, tmp_path: Path) -> None:
    config = {"learning_rate": 1e20, "optimizer": "sgd", "batch_size": 256}
    outcome, _ = run_task("movielens-deepfm", make_ratings(tmp_path), "--small", **config)
    assert outcome.failure.cause is Cause.NOT_FINITE


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_the_likes_of_each_user_are_split() -> None:
    script = script_of("movielens-lightgcn")
    likes = torch.tensor([(user, movie) for user in range(5) for movie in range(20)]).T
    parts = script.split(likes)
    counts = [torch.bincount(part[0]).tolist() for part in parts]
    assert counts == [[16] * 5, [2] * 5, [2] * 5]
    together = torch.cat(parts, dim=1)
    assert {tuple(pair) for pair in together.T.tolist()} == {tuple(p) for p in likes.T.tolist()}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_ndcg_is_that_of_its_definition() -> None:
    script = script_of("movielens-lightgcn")

    class Fixed:
        """One user who ranks twelve movies in their order."""

        @staticmethod
        def get_embedding(edges: object) -> torch.Tensor:
            return torch.tensor([[1.0], *[[float(12 - rank)] for rank in range(12)]])

    known, wanted = torch.zeros(1, 12, dtype=torch.bool), torch.zeros(1, 12, dtype=torch.bool)
    known[0, 0] = True  # the first of the others has rank 1
    wanted[0, [1, 3, 11]] = True  # ranks 1 and 3, and one beyond the ten
    best = 1 + 1 / torch.log2(torch.tensor(3.0)) + 1 / 2
    expected = (1 + 1 / 2) / best
    assert script.ndcg(Fixed, None, known, wanted) == pytest.approx(float(expected))
