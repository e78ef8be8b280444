"""The prior that is made of a model's samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import spaces

from localhpo.creator import History, open_creator
from localhpo.creator.bo import SamplePrior
from localhpo.creator.model_source import SAMPLES
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.trial import DEFAULT

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


def build(space, configs):
    return SamplePrior(space, configs, source="llm", trust=0.5, description="the model")


def drawn(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


def prior_at(space, configs, *asked):
    return build(space, configs)(encoded(space, asked))


NUMBERS = Space([Float("x", 0.0, 1.0), Float("y", 0.0, 1.0)])


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_the_prior_is_larger_near_the_samples(value):
    rng = np.random.default_rng(0)
    around = np.clip(rng.normal(value, 0.03, (24, 2)), 0.0, 1.0)
    configs = [NUMBERS.decode(point) for point in around]
    away = 1.0 if value < 0.5 else 0.0
    near, nearly, far = prior_at(
        NUMBERS, configs, *({"x": x, "y": value} for x in (value, (2 * value + away) / 3, away))
    )
    assert near > nearly > far
    assert near > 0.0


def test_a_single_sample_makes_a_prior():
    near, far = prior_at(
        NUMBERS, [{"x": 0.8, "y": 0.3}], {"x": 0.8, "y": 0.3}, {"x": 0.1, "y": 0.9}
    )
    assert near > 0.0 > far


def test_every_parameter_adds_to_the_prior():
    at = {"x": 0.2, "y": 0.7}
    both, one, none = prior_at(NUMBERS, [at] * 12, at, {"x": 0.2, "y": 0.1}, {"x": 0.9, "y": 0.1})
    assert both > one > none


def test_the_most_frequent_category_has_the_largest_prior():
    space = Space([Categorical("booster", ("tree", "dart", "linear", "none"))])
    configs = [{"booster": name} for name in ["dart"] * 12 + ["tree"] * 6 + ["linear"] * 1]
    dart, tree, linear, none = prior_at(
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
def test_random_samples_have_a_small_spread(space):
    """Random samples are far less certain than equal ones."""
    random = [build(space, drawn(space, 32, seed)).spread for seed in range(5)]
    same = build(space, [space.default()] * 32).spread
    assert np.mean(random) < same / 3


HARD_SPACES = {
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


@pytest.mark.parametrize("space", HARD_SPACES.values(), ids=HARD_SPACES)
def test_a_model_that_samples_at_random_is_uncertain_in_any_space(make_task, fake_backend, space):
    task, opened = make_task(space=space), []
    for seed in range(4):
        texts = [space.text(config) for config in drawn(space, SAMPLES, seed)]
        backend = fake_backend(lambda call, sample, texts=texts: texts[sample], "compact")
        creator = open_creator(task, backend=backend)
        opened += [p.origin for p in creator.propose(History(task, (), seed, 0), 1)]
    assert opened.count(DEFAULT) >= 3, "one of four may look certain by chance"


def test_samples_without_a_parameter_do_not_inform_its_values():
    """Most samples have no `drop`; in those that do it is large."""
    configs = [{"model": "tree", "booster": "dart"}] * 20
    configs += [{"model": "net", "drop": drop} for drop in (0.86, 0.9, 0.94)] * 2
    large, middle, small = prior_at(
        NESTED, configs, *({"model": "net", "drop": drop} for drop in (0.9, 0.5, 0.1))
    )
    assert large > middle
    assert large > small
    assert middle == pytest.approx(small, abs=0.2)


def test_an_inactive_category_has_a_finite_prior():
    configs = [{"model": "net", "drop": 0.5}] * 4 + [{"model": "tree", "booster": "dart"}] * 4
    dart, gbtree, inactive = prior_at(
        NESTED,
        configs,
        {"model": "tree", "booster": "dart"},
        {"model": "tree", "booster": "gbtree"},
        {"model": "net", "drop": 0.0},
    )
    assert dart > gbtree
    assert np.isfinite(inactive)


def test_the_order_of_the_samples_does_not_matter():
    configs = drawn(MIXED, 16)
    asked = encoded(MIXED, drawn(MIXED, 30, seed=1))
    forwards, backwards = (build(MIXED, list(order)) for order in (configs, configs[::-1]))
    np.testing.assert_allclose(forwards(asked), backwards(asked), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(space=spaces(), count=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_in_any_space_the_prior_is_finite_and_bounded(space, count, seed):
    made = build(space, drawn(space, count, seed))
    rng = np.random.default_rng(seed + 1)
    asked = np.concatenate(
        [encoded(space, drawn(space, 8, seed + 2)), rng.random((8, len(space.columns)))]
    )
    values = made(asked)
    assert values.shape == (16,)
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 1.0
    assert np.isfinite(made.spread)
    assert made.spread >= 0.0


@settings(max_examples=40, deadline=None)
@given(space=spaces(conditional=False), seed=st.integers(0, 2**32 - 1))
def test_a_repeated_sample_has_the_largest_prior(space, seed):
    config = space.sample(np.random.default_rng(seed))
    others = drawn(space, 12, seed + 1)
    favorite, *rest = build(space, [config] * 24)(encoded(space, [config, *others]))
    assert favorite >= max(rest) - 1e-4  # a density is tabulated: its peak may lie beside it
