"""A task in the form that a configuration model knows, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localhpo.creator.known_form import KnownForm
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.testing import make_task as task_of

KNOWN = frozenset({"learning_rate", "lr", "hidden_size", "dropout", "max_depth", "alpha"})


def form(make_task, *parameters, known=KNOWN):
    return KnownForm(make_task(space=Space(list(parameters))), known)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1e-5, 1e-4, 1e-3, 1e-2), Float("alpha", 1e-5, 1e-2, log=True)),
        ((0.0, 0.1, 0.2, 0.5), Float("alpha", 0.0, 0.5)),
        ((16, 32, 64, 128), Int("alpha", 16, 128, log=True)),
        ((1, 2, 3, 4), Int("alpha", 1, 4)),
        ((8, 16), Ordinal("alpha", (8, 16))),
        (("small", "medium", "large"), Ordinal("alpha", ("small", "medium", "large"))),
    ],
    ids=["ratios", "differences", "powers of two", "counts", "two values", "words"],
)
def test_a_list_of_numbers_is_asked_for_as_a_range(make_task, values, expected):
    asked = form(make_task, Ordinal("alpha", values), Float("x", 0.0, 1.0))
    assert asked.task.space["alpha"] == expected


def test_names_are_those_that_the_model_knows(make_task):
    asked = form(
        make_task, Float("optim.initial_lr", 1e-4, 1.0, log=True), Int("n_units_1", 8, 64),
        Int("n_units_2", 8, 64), Float("dropout_1", 0.0, 0.5), Float("dropout_2", 0.0, 0.9),
        Int("beta1", 1, 9), Int("clf__max_depth", 1, 9),
    )  # fmt: skip
    assert asked.names == {
        "optim.initial_lr": "learning_rate", "n_units_1": "hidden_size",
        "n_units_2": "hidden_size", "beta1": "beta1", "clf__max_depth": "max_depth",
        # Of different ranges, so each is asked for by itself.
        "dropout_1": "dropout_1", "dropout_2": "dropout_2",
    }  # fmt: skip
    answer = {
        "learning_rate": 1e-2, "hidden_size": 24, "dropout_1": 0.1, "dropout_2": 0.7, "beta1": 3,
        "max_depth": 4,
    }  # fmt: skip
    restored = asked.restore(answer)
    assert restored["n_units_1"] == restored["n_units_2"] == 24
    assert restored["clf__max_depth"] == 4


def test_a_number_takes_the_nearest_value_on_the_scale_of_the_list(make_task):
    asked = form(make_task, Ordinal("lr", (1e-4, 1e-3, 1e-2)), Float("x", 0.0, 1.0))
    for answer, expected in ((2.9e-3, 1e-3), (3.5e-3, 1e-2), (1e-4, 1e-4)):
        assert asked.restore({"lr": answer, "x": 0.5})["lr"] == expected


def test_conditions_are_kept(make_task):
    asked = form(
        make_task, Categorical("opt", ("sgd", "adam")),
        Ordinal("depth", (1, 2, 3)), Ordinal("rate", (0.1, 0.2, 0.3), when={"depth": (2, 3)}),
        Float("momentum", 0.0, 1.0, when={"opt": ("sgd",)}),
    )  # fmt: skip
    space, depth = asked.task.space, asked.names["depth"]
    assert space[depth].kind == "ordinal", "the values of a parent are named in conditions"
    assert space["rate"].when == {depth: (2, 3)}
    assert asked.restore({"opt": "adam", depth: 1}) == {"opt": "adam", "depth": 1}


@settings(max_examples=60)
@given(
    lists=st.lists(
        st.lists(st.integers(1, 10_000), min_size=1, max_size=8, unique=True).map(sorted),
        min_size=1, max_size=5,
    ),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_what_is_restored_is_in_the_space(lists, seed):
    names = ("lr", "n_units_1", "n_units_2", "model.dropout", "other")
    space = Space([Ordinal(n, tuple(v)) for n, v in zip(names, lists, strict=False)])
    asked = KnownForm(task_of(space), KNOWN)
    config = asked.restore(asked.task.space.sample(np.random.default_rng(seed)))
    space.validate(config)
