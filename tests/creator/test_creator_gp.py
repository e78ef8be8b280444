"""The Gaussian process, against its formulas computed in another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from localhpo.creator.bo import gp

LAYOUTS = {"one number": (1,), "numbers": (1, 1, 1), "numbers and categories": (1, 3, 1, 2)}
"""Columns of each parameter."""


def groups_of(layout):
    ends = np.cumsum(layout)
    return [slice(int(end - width), int(end)) for end, width in zip(ends, layout, strict=True)]


def points(layout, count, rng):
    parts = [
        rng.random((count, 1)) if width == 1 else np.eye(width)[rng.integers(width, size=count)]
        for width in layout
    ]
    return np.concatenate(parts, axis=1)


def make_data(layout, seed, *, prior=True, count=12):
    rng = np.random.default_rng(seed)
    x = points(layout, count, rng)
    phi = np.tanh(rng.normal(size=(count, 2 if prior else 0)))
    y = np.sin(5.0 * x[:, 0]) + 0.5 * phi.sum(1) + 0.1 * rng.normal(size=count)
    return gp.TrainingData(
        x, phi, (y - y.mean()) / y.std(), groups_of(layout), np.array([0.8, 0.3][: phi.shape[1]])
    )


def thetas(layout, seed):
    """Return plausible log lengths, log scale and log noise."""
    rng = np.random.default_rng(1000 + seed)
    lengths = rng.normal(0.0, 0.7, len(layout))
    return np.concatenate([lengths, rng.normal(0.3, 0.5, 1), rng.normal(-2.5, 0.7, 1)])


def brute_force(data, theta, x, phi):
    """Return mean and covariance of the function at `x` and of the K weights, given the data.

    The joint covariance of trials, points and weights, written down from the definition, pair
    by pair, and conditioned.
    """
    lengths, scale, noise = np.exp(theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
    everywhere, phis = np.concatenate([data.x, x]), np.concatenate([data.phi, phi])
    total, n = len(everywhere), len(data.x)
    weights = len(data.weights)
    joint = np.empty((total + weights, total + weights))
    for i in range(total):
        for j in range(total):
            r2 = 0.0
            for length, columns in zip(lengths, data.groups, strict=True):
                gap = everywhere[i, columns] - everywhere[j, columns]
                apart = gap[0] ** 2 if len(gap) == 1 else float(np.any(gap != 0.0))
                r2 += apart / length**2
            r = np.sqrt(5.0 * r2)
            matern = (1.0 + r + r * r / 3.0) * np.exp(-r)
            feature = gp.WEIGHT_SD**2 * (phis[i] @ phis[j])
            joint[i, j] = scale**2 * (matern + feature + gp.CONSTANT_SD**2)
    joint[:n, :n] += scale**2 * (noise**2 + gp._JITTER) * np.eye(n)
    joint[total:, :total] = scale * gp.WEIGHT_SD**2 * phis.T
    joint[:total, total:] = joint[total:, :total].T
    joint[total:, total:] = gp.WEIGHT_SD**2 * np.eye(weights)
    mean = np.append(scale * (phis @ data.weights), data.weights)
    gain = joint[n:, :n] @ np.linalg.inv(joint[:n, :n])
    return (
        mean[n:] + gain @ (data.y - mean[:n]),
        joint[n:, n:] - gain @ joint[:n, n:],
    )


@pytest.mark.parametrize("prior", [True, False], ids=["prior", "no prior"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_the_loss_is_that_of_finite_differences(layout, seed, prior):
    data, theta = make_data(layout, seed, prior=prior), thetas(layout, seed)
    differences = [
        approx_fprime(theta, lambda t: gp._loss(t, data)[0], step) for step in (1e-6, -1e-6)
    ]
    _, gradient = gp._loss(theta, data)
    np.testing.assert_allclose(gradient, np.mean(differences, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prior", [True, False], ids=["prior", "no prior"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_posterior_is_the_joint_covariance_conditioned(layout, prior):
    data, theta = make_data(layout, 5, prior=prior), thetas(layout, 5)
    rng = np.random.default_rng(6)
    x = points(layout, 7, rng)
    phi = np.tanh(rng.normal(size=(7, len(data.weights))))
    mean, deviation = gp.Posterior(data, theta).predict(x, phi)
    expected, covariance = brute_force(data, theta, x, phi)
    np.testing.assert_allclose(mean, expected[:7], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(covariance)[:7]), rtol=1e-6)
    np.testing.assert_allclose(
        gp.Posterior(data, theta).weights, expected[7:], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_without_noise_the_trials_are_interpolated(layout):
    groups, rng = groups_of(layout), np.random.default_rng(2)
    x = np.unique(points(layout, 8, rng), axis=0)
    phi, y = np.tanh(x[:, :1] - 0.5), np.sin(5.0 * x[:, 0]) + x[:, -1]
    data = gp.TrainingData(x, phi, (y - y.mean()) / y.std(), groups, np.array([0.5]))
    theta = np.array([*[-1.0] * len(layout), 0.0, -7.0])
    posterior = gp.Posterior(data, theta)
    mean, deviation = posterior.predict(x, phi)
    np.testing.assert_allclose(mean, data.y, atol=1e-2)
    assert deviation.max() < 1e-2
    other = points(layout, 50, rng)
    assert posterior.predict(other, np.zeros((50, 1)))[1].max() > 5.0 * deviation.max()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_trials_are_fitted_with_finite_predictions(count):
    data = make_data((1, 1), 3, count=12)
    few = gp.TrainingData(
        data.x[:count], data.phi[:count], data.y[:count], data.groups, data.weights
    )
    theta = gp.fit(few)[0]
    assert np.isfinite(theta).all()
    mean, deviation = gp.Posterior(few, theta).predict(data.x, data.phi)
    assert np.isfinite(mean).all()
    assert (deviation > 0.0).all()


def test_repeated_trials_are_averaged():
    groups, count = groups_of((1, 2)), 40
    x = np.tile([0.3, 1.0, 0.0], (count, 1))
    y = np.where(np.arange(count) % 2, 1.0, -1.0)
    data = gp.TrainingData.without_prior(x, y, groups)
    mean, deviation = gp.Posterior(data, gp.fit(data)[0]).predict(x[:1], gp.no_prior(x[:1]))
    assert abs(mean[0]) < 0.05
    assert deviation[0] < 0.5


def test_a_parameter_without_effect_gets_the_longer_length_scale():
    rng = np.random.default_rng(0)
    x = rng.random((40, 2))
    y = np.sin(8.0 * x[:, 1])
    data = gp.TrainingData.without_prior(x, (y - y.mean()) / y.std(), groups_of((1, 1)))
    idle, busy = np.exp(gp.fit(data)[0][:2])
    assert idle > 3.0 * busy


def weight_after(sign, count, before):
    """Return the weight of the prior after trials that follow it, or its opposite."""
    rng = np.random.default_rng(1)
    x = rng.random((40, 2))[:count]
    phi = np.tanh(2.0 - 8.0 * np.abs(x - 0.3).sum(1))
    y = sign * phi + 0.02 * rng.normal(size=40)[:count]
    y = (y - y.mean()) / y.std()
    data = gp.TrainingData(x, phi[:, None], y, groups_of((1, 1)), np.array([before]))
    return gp.Posterior(data, gp.fit(data)[0]).weights[0]


def test_trials_that_agree_raise_the_weight_of_the_prior():
    assert weight_after(1.0, 20, before=0.3) > 0.4


def test_trials_that_contradict_lower_the_weight_of_the_prior():
    before = 1.0
    weights = [weight_after(-1.0, count, before) for count in (3, 8, 20)]
    assert before > weights[0] > weights[2]
    assert weights[2] < 0.3 * before
    assert weights[2] < weight_after(1.0, 20, before)


def test_of_two_priors_the_trials_follow_one_gains_weight():
    rng = np.random.default_rng(1)
    x = rng.random((12, 2))
    right, wrong = np.tanh(2.0 - 8.0 * np.abs(x - 0.3).sum(1)), np.tanh(rng.normal(size=12))
    data = gp.TrainingData(
        x, np.column_stack([wrong, right]), (right - right.mean()) / right.std(),
        groups_of((1, 1)), np.ones(2),
    )  # fmt: skip
    weights = gp.Posterior(data, gp.fit(data)[0]).weights
    assert weights[1] > weights[0]


def test_a_constant_prior_keeps_its_weight_and_changes_no_prediction():
    data = make_data((1, 1), 0, prior=False)
    weighted, theta = (
        replace(data, phi=np.zeros((12, 1)), weights=np.array([0.7])),
        thetas((1, 1), 0),
    )
    assert gp.Posterior(weighted, theta).weights == pytest.approx([0.7])
    means = [gp.Posterior(d, theta).predict(d.x, d.phi)[0] for d in (data, weighted)]
    np.testing.assert_allclose(means[0], means[1])


def test_any_two_categories_have_distance_one():
    (apart,) = gp.squared_distances(np.eye(4), np.eye(4), [slice(0, 4)])
    np.testing.assert_allclose(apart, 1.0 - np.eye(4), atol=1e-12)


def test_squared_distances_are_computed_parameter_by_parameter():
    layout, rng = (1, 3, 1), np.random.default_rng(0)
    a, b = points(layout, 5, rng), points(layout, 3, rng)
    apart = gp.squared_distances(a, b, groups_of(layout))
    assert apart.shape == (3, 5, 3)
    for i in range(5):
        for j in range(3):
            assert apart[0, i, j] == pytest.approx((a[i, 0] - b[j, 0]) ** 2)
            assert apart[1, i, j] == pytest.approx(float(a[i, 1:4].argmax() != b[j, 1:4].argmax()))
            assert apart[2, i, j] == pytest.approx((a[i, 4] - b[j, 4]) ** 2)
