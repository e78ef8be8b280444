from __future__ import annotations

import numpy as np
import pytest

from scripts.benchmarks.problems import splits, yahpo
from scripts.build_model import corpus, functions, problems, spaces, trainings
from scripts.build_model.learners import LEARNERS, Learner
from scripts.build_model.networks import NETWORKS


def active(learner: Learner, values: dict) -> dict:
    return problems.active(learner.dims, values)


@pytest.mark.parametrize("learner", (*LEARNERS, *NETWORKS), ids=lambda item: item.name)
def test_a_cut_maps_to_the_full_space(learner: Learner) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        fixed = trainings.draw(learner, rng)
        piece = spaces.cut(learner.dims, fixed, rng)
        if piece is None:
            continue
        full = active(learner, piece.full(piece.space.sample(rng)))
        dims = {dim.name: dim for dim in learner.dims}
        assert set(full) == set(active(learner, {**fixed, **full}))
        for name, value in full.items():
            if dims[name].values:
                assert value in dims[name].values
            else:
                assert dims[name].low <= value <= dims[name].high * (1 + 1e-9)


def test_cuts_hold_what_users_write() -> None:
    rng = np.random.default_rng(1)
    learner = LEARNERS[0]
    cuts = [spaces.cut(learner.dims, trainings.draw(learner, rng), rng) for _ in range(150)]
    parameters = [p for piece in cuts if piece is not None for p in piece.space.parameters]
    told = [p for p in parameters if p not in spaces.IDLE]
    assert {p.kind for p in told} == {"float", "int", "ordinal"}
    assert any(getattr(p, "low", 1) == 0 for p in parameters)
    assert any(getattr(p, "log", False) for p in parameters)
    assert any(p.name == "lr" for p in parameters) and any(p.name == "eta" for p in parameters)


def test_some_cuts_hold_a_parameter_without_effect() -> None:
    rng = np.random.default_rng(2)
    learner = LEARNERS[0]
    count = 0
    for _ in range(200):
        fixed = trainings.draw(learner, rng)
        piece = spaces.cut(learner.dims, fixed, rng)
        if piece is None:
            continue
        idle = set(piece.space.names) & {p.name for p in spaces.IDLE}
        count += bool(idle)
        assert len(idle) <= 1
        full = piece.full(piece.space.sample(rng))
        assert full.keys() <= fixed.keys()  # nothing of it is left
    assert 5 <= count <= 40


def test_fixed_values_are_described_by_the_names_of_the_user() -> None:
    rng = np.random.default_rng(4)
    learner = next(item for item in LEARNERS if any(dim.when for dim in item.dims))
    told = []
    for _ in range(150):
        piece = spaces.cut(learner.dims, trainings.draw(learner, rng), rng)
        if piece is None or piece.has_made_up_names:
            continue
        assert not piece.described.keys() & set(piece.space.names)
        assert len(piece.described) <= len(piece.fixed)
        told.append((len(piece.described), len(piece.fixed)))
    assert any(count == 0 < of for count, of in told)
    assert any(0 < count < of for count, of in told)
    assert any(count == of > 0 for count, of in told)


def test_quantized_values_stay_canonical_and_short() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        space, _, _ = functions.make(rng, 3)
        config = corpus.quantize_config(space, space.sample(rng))
        space.validate(config)
        assert len(space.text(config)) <= len(space.text(space.sample(rng))) + 40


def test_answers_do_well_on_many_data_sets_and_later_on_those_that_agree() -> None:
    rng = np.random.default_rng(3)
    pool = corpus.draw(problems.from_function(rng), rng)
    assert pool is not None
    mean, own = pool.regrets.mean(0), pool.regrets[0]
    first = corpus.pick(pool, [], [], 8, rng)
    assert len(set(first)) == 8
    assert mean[first].mean() < np.quantile(mean, 0.1)
    past = [int(i) for i in np.argsort(own)[:: len(own) // 8]]
    later = corpus.pick(pool, past[1:], [], 8, rng)
    assert not set(later) & set(past[1:])
    assert np.median(own[later]) < np.median(own[first])
    weights = corpus.likelihood(pool.regrets[:, past])
    assert weights.sum() == pytest.approx(1.0)
    assert weights.argmax() == 0, "the own data set explains its own trials best"


def test_a_data_set_is_on_one_side_in_every_family() -> None:
    sides: dict[str, set[str]] = {"train": set(), "held_out": set()}
    families = yahpo.splits()["yahpo"]["families"]
    for family, parts in families.items():
        for side, instances in parts.items():
            sides[side] |= {splits.data_set_id(family, instance) for instance in instances}
    assert not sides["train"] & sides["held_out"]
    assert not sides["train"] & set(splits.NEVER_TRAIN)
    assert not set(families) & {*splits.UNSEEN, *splits.UNUSED}


def test_a_real_training_improves_with_its_configuration() -> None:
    learner = next(item for item in LEARNERS if item.name == "neighbors")
    record = trainings.run(learner, "binary", seed=5, evaluations=20, limit_s=30.0)
    accuracy = [scores["accuracy"] for scores in record["scores"] if scores]
    assert len(accuracy) == 20 and 0.0 <= min(accuracy) < max(accuracy) <= 1.0


def test_a_range_of_one_value_has_an_optimum() -> None:
    entry = functions.Range(("clip",), lows=(1.0,), highs=(1.0,), center=0.0, spread=0.5, log=True)
    rng = np.random.default_rng(0)
    parameter = functions._parameter(entry, rng)
    peak, _ = functions._peak(parameter, entry, rng)
    assert parameter.cardinality == 1
    assert 0.0 <= peak <= 1.0
