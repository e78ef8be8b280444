"""Estimates of memory: reserved, refused, and the observations behind them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from localhpo.resources.memory import (
    MemoryEstimator,
    MemoryLimit,
    PeakObservation,
    find_exhausted_memory,
    must_rerun_exclusively,
    read_observations,
)
from localhpo.resources.peaks import PeakModel
from localhpo.space import Float, Space
from localhpo.trial import Cause, Config, Failure, Measurement, State, Trial, Usage

SPACE = Space.from_table(
    {
        "batch": {"type": "int", "low": 8, "high": 512, "log": True},
        "hidden": {"type": "ordinal", "values": [64, 128, 256, 512, 1024]},
        "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "kind": {"type": "categorical", "values": ["plain", "wide"]},
        "heads": {"type": "int", "low": 1, "high": 8, "when": {"kind": ["wide"]}},
    }
)


def peak_mb(config: Config) -> float:
    """Peak of a base, weights that grow with width², and activations with batch x width."""
    wide = 1.5 if config["kind"] == "wide" else 1.0
    batch, hidden = int(config["batch"]), int(config["hidden"])
    return 400 + wide * (0.001 * hidden**2 + 0.02 * batch * hidden)


def draw(count: int, seed: int) -> list[PeakObservation]:
    rng = np.random.default_rng(seed)
    configs = [SPACE.sample(rng) for _ in range(count)]
    return [
        PeakObservation(c, peak_mb(c) * math.exp(0.02 * rng.standard_normal())) for c in configs
    ]


def test_a_whole_device_is_reserved_before_anything_is_measured() -> None:
    estimate = MemoryEstimator(SPACE, MemoryLimit(8000)).estimate(draw(1, 0)[0].config, [])
    assert estimate.mb == 8000
    assert "no trial was measured yet" in estimate.reason
    assert MemoryEstimator(SPACE, MemoryLimit(None)).estimate(draw(1, 0)[0].config, []).mb is None


def test_declared_memory_is_reserved() -> None:
    estimator = MemoryEstimator(SPACE, MemoryLimit(8000, declared_mb=3000))
    assert estimator.estimate(draw(1, 0)[0].config, draw(9, 1)).mb == 3000


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 3, 6, 12, 25])
def test_the_estimate_is_rarely_too_small(count: int, seed: int) -> None:
    observations, unseen = draw(count, seed), draw(25, seed + 100)
    estimator = MemoryEstimator(SPACE, MemoryLimit(None))
    short = [
        seen
        for seen in unseen
        if (estimator.estimate(seen.config, observations).mb or 0) < seen.peak_mb
    ]
    assert len(short) <= 2


def test_the_estimate_tightens_with_observations() -> None:
    unseen = draw(30, 7)

    def excess(count: int) -> float:
        estimator, observations = MemoryEstimator(SPACE, MemoryLimit(None)), draw(count, 8)
        found = [(estimator.estimate(s.config, observations).mb or 0) / s.peak_mb for s in unseen]
        return float(np.median(found))

    assert excess(30) < 1.25 < excess(3)


def test_the_estimate_never_exceeds_the_device() -> None:
    observations = draw(1, 3)
    estimator = MemoryEstimator(SPACE, MemoryLimit(500))
    estimate = estimator.estimate({**observations[0].config, "batch": 512}, observations)
    assert estimate.mb == 500
    assert "whole device" in estimate.reason


def test_only_configurations_that_cannot_fit_are_refused() -> None:
    observations = draw(30, 4)
    estimator = MemoryEstimator(SPACE, MemoryLimit(3000, "GPU memory"))
    large = {"batch": 512, "hidden": 1024, "rate": 1e-3, "dropout": 0.1, "kind": "plain"}
    refusal = estimator.explain_refusal(large, observations)
    assert refusal is not None
    assert "MB of GPU memory" in refusal
    assert "from 30 measured trials" in refusal
    assert "of which there are 3000 MB" in refusal
    assert estimator.explain_refusal({**large, "batch": 16, "hidden": 128}, observations) is None


@pytest.mark.parametrize("seed", range(4))
def test_configurations_that_fit_are_rarely_refused(seed: int) -> None:
    observations, unseen = draw(15, seed), draw(150, seed + 50)
    estimator = MemoryEstimator(SPACE, MemoryLimit(2500))
    refused = [s for s in unseen if estimator.explain_refusal(s.config, observations) is not None]
    wrongly = [s for s in refused if s.peak_mb < 2500]
    assert len([s for s in refused if s.peak_mb >= 2500]) >= 10
    assert len(wrongly) <= 2


def test_nothing_is_refused_far_below_the_limit() -> None:
    observations = draw(20, 5)
    assert (
        MemoryEstimator(SPACE, MemoryLimit(1e6)).explain_refusal(
            observations[0].config, observations
        )
        is None
    )
    assert (
        MemoryEstimator(SPACE, MemoryLimit(None)).explain_refusal(
            observations[0].config, observations
        )
        is None
    )


def test_running_out_of_memory_raises_the_estimate() -> None:
    config = {"batch": 64, "hidden": 256, "rate": 1e-3, "dropout": 0.1, "kind": "plain"}
    near = {**config, "batch": 60}
    exact = [PeakObservation({**config, "batch": b}, 500.0 + b) for b in (8, 12, 16, 24)]
    before = PeakModel(SPACE, *columns(exact))
    after = PeakModel(SPACE, *columns([*exact, PeakObservation(config, 4000, is_lower_bound=True)]))
    assert after.quantile(near, 0.5) > 1.5 * before.quantile(near, 0.5)


def test_a_lower_bound_that_is_predicted_anyway_changes_nothing() -> None:
    observations = draw(20, 6)
    bound = PeakObservation(observations[3].config, 100.0, is_lower_bound=True)
    before = PeakModel(SPACE, *columns(observations))
    after = PeakModel(SPACE, *columns([*observations, bound]))
    assert after.quantile(bound.config, 0.9) == before.quantile(bound.config, 0.9)


def test_a_model_is_fitted_to_lower_bounds_alone() -> None:
    failed = [replace(seen, is_lower_bound=True) for seen in draw(3, 9)]
    model = PeakModel(SPACE, *columns(failed))
    assert model.quantile(failed[0].config, 0.5) >= failed[0].peak_mb * 0.9


def test_quantiles_are_ordered_and_repeatable() -> None:
    observations = draw(8, 2)
    config = draw(1, 77)[0].config
    model, again = (
        PeakModel(SPACE, *columns(observations)),
        PeakModel(SPACE, *columns(observations)),
    )
    quantiles = [model.quantile(config, p) for p in (0.05, 0.2, 0.5, 0.9, 0.99)]
    assert quantiles == sorted(quantiles)
    assert quantiles == [again.quantile(config, p) for p in (0.05, 0.2, 0.5, 0.9, 0.99)]


def columns(observations: list[PeakObservation]) -> tuple[list[Config], list[float], list[bool]]:
    return (
        [seen.config for seen in observations],
        [seen.peak_mb for seen in observations],
        [seen.is_lower_bound for seen in observations],
    )


def test_a_space_of_one_fixed_value_has_the_observed_peak() -> None:
    space = Space.from_table({"depth": {"type": "int", "low": 3, "high": 3}})
    model = PeakModel(space, [{"depth": 3}] * 5, [900, 905, 910, 903, 898], [False] * 5)
    assert 880 < model.quantile({"depth": 3}, 0.5) < 930


# Observations from trials.

MakeTrial = Callable[..., Trial]
USED = Usage(wall_s=1.0, peak_memory_mb=300.0, peak_gpu_memory_mb=5000.0)
REPORTED = (Measurement(0, "loss", 1.0, 0.0),)


def failed(cause: Cause) -> Failure:
    return Failure(cause, "it failed")


@pytest.mark.parametrize(
    ("state", "failure", "measurements", "kind", "expected"),
    [
        (State.COMPLETE, None, (), "host", (300.0, False)),
        (State.COMPLETE, None, (), "device", (5000.0, False)),
        (State.PRUNED, None, REPORTED, "device", (5000.0, False)),
        (State.FAILED, failed(Cause.OUT_OF_MEMORY_DEVICE), (), "device", (5000.0, True)),
        (State.FAILED, failed(Cause.OUT_OF_MEMORY_DEVICE), REPORTED, "host", None),
        (State.FAILED, failed(Cause.OUT_OF_MEMORY_HOST), (), "host", (300.0, True)),
        (State.INTERRUPTED, failed(Cause.OUT_OF_MEMORY_DEVICE), (), "device", (5000.0, True)),
        (State.FAILED, failed(Cause.EXIT_CODE), (), "host", None),
        (State.FAILED, failed(Cause.TIMEOUT), REPORTED, "host", (300.0, False)),
        (State.INTERRUPTED, None, REPORTED, "host", None),
        (State.RUNNING, None, REPORTED, "host", None),
    ],
)
def test_observation_of_a_trial(
    make_trial: MakeTrial,
    state: State,
    failure: Failure | None,
    measurements: tuple[Measurement, ...],
    kind: str,
    expected: tuple[float, bool] | None,
) -> None:
    trial = make_trial(0, {}, state, failure=failure, measurements=measurements, usage=USED)
    seen = read_observations([trial], kind)  # type: ignore[arg-type]
    assert [(one.peak_mb, one.is_lower_bound) for one in seen] == (
        [] if expected is None else [expected]
    )


def test_a_trial_that_was_not_measured_gives_no_observation(make_trial: MakeTrial) -> None:
    assert read_observations([make_trial(0, {}, State.COMPLETE)], "host") == []


def test_which_memory_ran_out() -> None:
    assert find_exhausted_memory(failed(Cause.OUT_OF_MEMORY_HOST)) == "host"
    assert find_exhausted_memory(failed(Cause.TIMEOUT)) is None
    assert find_exhausted_memory(None) is None


ONE_FLOAT = Space([Float("x", 0.0, 1.0)])


SEEN_PEAKS = [PeakObservation({"x": 0.5}, 6_000.0 + i) for i in range(8)]


@pytest.mark.parametrize(
    ("usable_mb", "exclusive", "mb"),
    [(24_000.0, False, 6_300), (6_200.0, True, 6_200), (5_000.0, False, 6_000)],
)
def test_an_estimate_above_the_usable_memory_is_not_capped(
    usable_mb: float, exclusive: bool, mb: float
) -> None:
    estimator = MemoryEstimator(ONE_FLOAT, MemoryLimit(24_000.0, "GPU memory"))
    assert estimator.explain_refusal({"x": 0.5}, SEEN_PEAKS) is None
    estimate = estimator.estimate({"x": 0.5}, SEEN_PEAKS, usable_mb)
    assert estimate.exclusive is exclusive
    assert estimate.mb == pytest.approx(mb, rel=0.05)


def test_trials_that_must_rerun_exclusively(make_trial: Callable[..., Any]) -> None:
    waiting = make_trial(0, {"a": 1}, State.INTERRUPTED, failure=failed(Cause.OUT_OF_MEMORY_DEVICE))
    assert must_rerun_exclusively({"a": 1}, [waiting])
    assert not must_rerun_exclusively({"a": 2}, [waiting])
    assert not must_rerun_exclusively({"a": 1}, [make_trial(0, {"a": 1}, State.INTERRUPTED)])
    ended = make_trial(0, {"a": 1}, State.FAILED, failure=failed(Cause.OUT_OF_MEMORY_DEVICE))
    assert not must_rerun_exclusively({"a": 1}, [ended])
