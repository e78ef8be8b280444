"""Estimates of memory: what is reserved, what is refused, and what they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from localhpo.scheduler.memory import (
    Estimator,
    Observation,
    Wall,
    observations,
    ran_out,
)
from localhpo.scheduler.peaks import PeakModel
from localhpo.space import Space
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
    """A base, weights that grow with width squared, activations with batch x width."""
    wide = 1.5 if config["kind"] == "wide" else 1.0
    batch, hidden = int(config["batch"]), int(config["hidden"])
    return 400 + wide * (0.001 * hidden**2 + 0.02 * batch * hidden)


def drawn(count: int, seed: int) -> list[Observation]:
    rng = np.random.default_rng(seed)
    configs = [SPACE.sample(rng) for _ in range(count)]
    return [Observation(c, peak_mb(c) * math.exp(0.02 * rng.standard_normal())) for c in configs]


def test_nothing_measured_is_a_whole_device() -> None:
    estimate = Estimator(SPACE, Wall(8000)).estimate(drawn(1, 0)[0].config, [])
    assert estimate.mb == 8000
    assert "nothing was measured yet" in estimate.reason
    assert Estimator(SPACE, Wall(None)).estimate(drawn(1, 0)[0].config, []).mb is None


def test_what_the_task_declares_stands() -> None:
    estimator = Estimator(SPACE, Wall(8000, declared_mb=3000))
    assert estimator.estimate(drawn(1, 0)[0].config, drawn(9, 1)).mb == 3000


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 3, 6, 12, 25])
def test_the_reserve_is_rarely_too_little(count: int, seed: int) -> None:
    evidence, news = drawn(count, seed), drawn(25, seed + 100)
    estimator = Estimator(SPACE, Wall(None))
    short = [
        seen for seen in news if (estimator.estimate(seen.config, evidence).mb or 0) < seen.peak_mb
    ]
    assert len(short) <= 2


def test_the_reserve_tightens_with_evidence() -> None:
    news = drawn(30, 7)

    def excess(count: int) -> float:
        estimator, evidence = Estimator(SPACE, Wall(None)), drawn(count, 8)
        found = [(estimator.estimate(s.config, evidence).mb or 0) / s.peak_mb for s in news]
        return float(np.median(found))

    assert excess(30) < 1.25 < excess(3)


def test_the_reserve_never_exceeds_the_device() -> None:
    evidence = drawn(1, 3)
    estimator = Estimator(SPACE, Wall(500))
    estimate = estimator.estimate({**evidence[0].config, "batch": 512}, evidence)
    assert estimate.mb == 500
    assert "whole device" in estimate.reason


def test_the_largest_is_refused_with_the_number_and_the_smallest_is_not() -> None:
    evidence = drawn(30, 4)
    estimator = Estimator(SPACE, Wall(3000, "device memory"))
    large = {"batch": 512, "hidden": 1024, "rate": 1e-3, "dropout": 0.1, "kind": "plain"}
    refusal = estimator.refusal(large, evidence)
    assert refusal is not None
    assert "MB of device memory" in refusal
    assert "from 30 measured trials" in refusal
    assert "3000 MB is all there is" in refusal
    assert estimator.refusal({**large, "batch": 16, "hidden": 128}, evidence) is None


@pytest.mark.parametrize("seed", range(4))
def test_what_fits_is_hardly_ever_refused(seed: int) -> None:
    evidence, news = drawn(15, seed), drawn(150, seed + 50)
    estimator = Estimator(SPACE, Wall(2500))
    refused = [s for s in news if estimator.refusal(s.config, evidence) is not None]
    wrongly = [s for s in refused if s.peak_mb < 2500]
    assert len([s for s in refused if s.peak_mb >= 2500]) >= 10
    assert len(wrongly) <= 2


def test_nothing_is_refused_far_from_the_wall() -> None:
    evidence = drawn(20, 5)
    assert Estimator(SPACE, Wall(1e6)).refusal(evidence[0].config, evidence) is None
    assert Estimator(SPACE, Wall(None)).refusal(evidence[0].config, evidence) is None


def test_running_out_of_memory_teaches_that_more_is_needed() -> None:
    config = {"batch": 64, "hidden": 256, "rate": 1e-3, "dropout": 0.1, "kind": "plain"}
    near = {**config, "batch": 60}
    exact = [Observation({**config, "batch": b}, 500.0 + b) for b in (8, 12, 16, 24)]
    before = PeakModel(SPACE, *columns(exact))
    after = PeakModel(SPACE, *columns([*exact, Observation(config, 4000, at_least=True)]))
    assert after.quantile(near, 0.5) > 1.5 * before.quantile(near, 0.5)


def test_a_lower_bound_that_is_expected_anyway_changes_nothing() -> None:
    evidence = drawn(20, 6)
    bound = Observation(evidence[3].config, 100.0, at_least=True)
    before = PeakModel(SPACE, *columns(evidence))
    after = PeakModel(SPACE, *columns([*evidence, bound]))
    assert after.quantile(bound.config, 0.9) == before.quantile(bound.config, 0.9)


def test_nothing_but_failures_is_evidence_too() -> None:
    failed = [replace(seen, at_least=True) for seen in drawn(3, 9)]
    model = PeakModel(SPACE, *columns(failed))
    assert model.quantile(failed[0].config, 0.5) >= failed[0].peak_mb * 0.9


def test_quantiles_are_in_order_and_repeatable() -> None:
    evidence = drawn(8, 2)
    config = drawn(1, 77)[0].config
    model, again = PeakModel(SPACE, *columns(evidence)), PeakModel(SPACE, *columns(evidence))
    quantiles = [model.quantile(config, p) for p in (0.05, 0.2, 0.5, 0.9, 0.99)]
    assert quantiles == sorted(quantiles)
    assert quantiles == [again.quantile(config, p) for p in (0.05, 0.2, 0.5, 0.9, 0.99)]


def columns(evidence: list[Observation]) -> tuple[list[Config], list[float], list[bool]]:
    return (
        [seen.config for seen in evidence],
        [seen.peak_mb for seen in evidence],
        [seen.at_least for seen in evidence],
    )


def test_a_space_of_one_fixed_number_and_many_peaks() -> None:
    space = Space.from_table({"depth": {"type": "int", "low": 3, "high": 3}})
    model = PeakModel(space, [{"depth": 3}] * 5, [900, 905, 910, 903, 898], [False] * 5)
    assert 880 < model.quantile({"depth": 3}, 0.5) < 930


# What trials tell.

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
def test_what_a_trial_tells(
    make_trial: MakeTrial,
    state: State,
    failure: Failure | None,
    measurements: tuple[Measurement, ...],
    kind: str,
    expected: tuple[float, bool] | None,
) -> None:
    trial = make_trial(0, {}, state, failure=failure, measurements=measurements, usage=USED)
    seen = observations([trial], kind)  # type: ignore[arg-type]
    assert [(one.peak_mb, one.at_least) for one in seen] == ([] if expected is None else [expected])


def test_a_trial_that_was_not_measured_tells_nothing(make_trial: MakeTrial) -> None:
    assert observations([make_trial(0, {}, State.COMPLETE)], "host") == []


def test_which_memory_ran_out(make_trial: MakeTrial) -> None:
    out = make_trial(0, {}, State.FAILED, failure=failed(Cause.OUT_OF_MEMORY_HOST))
    assert ran_out(out) == "host"
    assert ran_out(make_trial(1, {}, State.FAILED, failure=failed(Cause.TIMEOUT))) is None
    assert ran_out(make_trial(2, {}, State.COMPLETE)) is None
