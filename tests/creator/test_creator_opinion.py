"""What is made of a model's samples: an opinion on every point of the space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import spaces

from localhpo.creator import History, open_creator
from localhpo.creator.agent import THOUGHTS
from localhpo.creator.bayes import Opinion
from localhpo.space import Categorical, Float, Int, Ordinal, Space

MIXED = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Int("depth", 1, 10),
        Ordinal("batch", (32, 64, 128)),
        Categorical("booster", ("tree", "dart", "linear")),
    ]
)
NESTED = Space(
    [
        Categorical("model", ("tree", "net")),
        Float("drop", 0.0, 1.0, when={"model": ("net",)}),
        Categorical("booster", ("gbtree", "dart"), when={"model": ("tree",)}),
    ]
)


def encoded(space, configs):
    return np.array([space.encode(space.canonical(config)) for config in configs])


def opinion(space, configs):
    return Opinion(space, configs, 1.0)


def drawn(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


def liking(space, configs, *asked):
    return opinion(space, configs)(encoded(space, asked))


NUMBERS = Space([Float("x", 0.0, 1.0), Float("y", 0.0, 1.0)])


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_what_is_near_the_samples_is_liked_more_than_what_is_away(value):
    rng = np.random.default_rng(0)
    around = np.clip(rng.normal(value, 0.03, (24, 2)), 0.0, 1.0)
    configs = [NUMBERS.decode(point) for point in around]
    away = 1.0 if value < 0.5 else 0.0
    near, nearly, far = liking(
        NUMBERS, configs, *({"x": x, "y": value} for x in (value, (2 * value + away) / 3, away))
    )
    assert near > nearly > far
    assert near > 0.0


def test_a_single_sample_is_an_opinion_too():
    near, far = liking(NUMBERS, [{"x": 0.8, "y": 0.3}], {"x": 0.8, "y": 0.3}, {"x": 0.1, "y": 0.9})
    assert near > 0.0 > far


def test_every_parameter_adds_to_it():
    at = {"x": 0.2, "y": 0.7}
    both, one, none = liking(NUMBERS, [at] * 12, at, {"x": 0.2, "y": 0.1}, {"x": 0.9, "y": 0.1})
    assert both > one > none


def test_of_categories_the_one_that_was_said_most_is_liked_most():
    space = Space([Categorical("booster", ("tree", "dart", "linear", "none"))])
    configs = [{"booster": name} for name in ["dart"] * 12 + ["tree"] * 6 + ["linear"] * 1]
    dart, tree, linear, none = liking(
        space, configs, *({"booster": name} for name in ("dart", "tree", "linear", "none"))
    )
    assert dart > tree > linear >= none


@pytest.mark.parametrize(
    "space",
    [
        NUMBERS,
        MIXED,
        Space([Categorical("c", ("a", "b", "c"))]),
        Space([Int("depth", 1, 3)]),
        Space([Float(f"x{n}", 0.0, 1.0) for n in range(8)]),
    ],
    ids=["numbers", "mixed", "category", "few values", "eight"],
)
def test_samples_from_all_over_are_next_to_no_opinion(space):
    """A model that says anything at all is far less sure than one that says nearly the same."""
    anything = [opinion(space, drawn(space, 32, seed)).spread for seed in range(5)]
    same = opinion(space, [space.default()] * 32).spread
    assert np.mean(anything) < same / 3


HARD_TO_BE_UNSURE_OF = {
    "conditional": Space(
        [
            Categorical("model", ("a", "b", "c")),
            *(Float(f"x{n}", 0.0, 1.0, when={"model": ("abc"[n],)}) for n in range(3)),
        ]
    ),
    "of one value": Space([Int("a", 3, 3), Float("b", 0.5, 0.5), Float("x", 0.0, 1.0)]),
    "of two values": Space([Int(f"x{n}", 0, 1) for n in range(12)]),
    "many": Space([Float(f"x{n}", 0.0, 1.0) for n in range(30)]),
}


@pytest.mark.parametrize("space", HARD_TO_BE_UNSURE_OF.values(), ids=HARD_TO_BE_UNSURE_OF)
def test_a_model_that_samples_blindly_is_unsure_in_any_space(make_task, fake_backend, space):
    task, opened = make_task(space=space), []
    for seed in range(4):
        texts = [space.text(config) for config in drawn(space, THOUGHTS, seed)]
        backend = fake_backend(lambda call, sample, texts=texts: texts[sample], "compact")
        creator = open_creator(task, backend=backend)
        opened += [p.origin for p in creator.propose(History(task, (), seed, 0), 1)]
    assert opened.count("default") >= 3, "luck may make one of four look sure"


def test_where_a_parameter_does_not_apply_it_says_nothing_of_its_values():
    """Most samples have no `drop`; those that do like it large."""
    configs = [{"model": "tree", "booster": "dart"}] * 20
    configs += [{"model": "net", "drop": drop} for drop in (0.86, 0.9, 0.94)] * 2
    large, middle, small = liking(
        NESTED, configs, *({"model": "net", "drop": drop} for drop in (0.9, 0.5, 0.1))
    )
    assert large > middle
    assert large > small
    assert middle == pytest.approx(small, abs=0.2)


def test_a_category_that_does_not_apply_is_neither_liked_nor_disliked():
    configs = [{"model": "net", "drop": 0.5}] * 4 + [{"model": "tree", "booster": "dart"}] * 4
    dart, gbtree, inactive = liking(
        NESTED,
        configs,
        {"model": "tree", "booster": "dart"},
        {"model": "tree", "booster": "gbtree"},
        {"model": "net", "drop": 0.0},
    )
    assert dart > gbtree
    assert np.isfinite(inactive)


def test_its_order_and_its_repetition_do_not_matter():
    configs = drawn(MIXED, 16)
    asked = encoded(MIXED, drawn(MIXED, 30, seed=1))
    forwards, backwards = (opinion(MIXED, list(order)) for order in (configs, configs[::-1]))
    np.testing.assert_allclose(forwards(asked), backwards(asked), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(space=spaces(), count=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_in_any_space_it_is_finite_and_bounded(space, count, seed):
    made = opinion(space, drawn(space, count, seed))
    rng = np.random.default_rng(seed + 1)
    asked = np.concatenate(
        [encoded(space, drawn(space, 8, seed + 2)), rng.random((8, len(space.columns)))]
    )
    said = made(asked)
    assert said.shape == (16,)
    assert np.isfinite(said).all()
    assert np.abs(said).max() <= 1.0
    assert np.isfinite(made.spread)
    assert made.spread >= 0.0


@settings(max_examples=40, deadline=None)
@given(space=spaces(conditional=False), seed=st.integers(0, 2**32 - 1))
def test_what_was_said_again_and_again_is_liked_best(space, seed):
    config = space.sample(np.random.default_rng(seed))
    others = drawn(space, 12, seed + 1)
    favorite, *rest = opinion(space, [config] * 24)(encoded(space, [config, *others]))
    assert favorite >= max(rest) - 1e-4  # a density is tabulated: its peak may lie beside it
