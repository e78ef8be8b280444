"""To and from Optuna, with real studies."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from strategies import spaces, spaces_with_configs

from localhpo.errors import ConfigurationError, SpaceError
from localhpo.space import Categorical, Float, Int, Ordinal, Space, Value
from localhpo.space.optuna import (
    from_distributions,
    from_internal,
    suggest,
    to_distributions,
    to_internal,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = Space(
    [
        Float("lr", 1e-4, 1e-1, log=True),
        Float("momentum", 0.0, 1.0),
        Float("dropout", 0.1, 0.95, step=0.2),
        Int("depth", 3, 12, step=2),
        Int("units", 1, 4096, log=True),
        Ordinal("batch", (32, 64, 128)),
        Categorical("booster", ("gbtree", "dart")),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",), "batch": (64, 128)}),
    ]
)


def test_distributions_keep_bounds_log_and_step() -> None:
    assert to_distributions(SPACE) == {
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "momentum": FloatDistribution(0.0, 1.0),
        "dropout": FloatDistribution(0.1, 0.9, step=0.2),
        "depth": IntDistribution(3, 11, step=2),
        "units": IntDistribution(1, 4096, log=True),
        "batch": IntDistribution(0, 2),
        "booster": CategoricalDistribution(("gbtree", "dart")),
        "rate_drop": FloatDistribution(0.0, 0.5),
    }


def test_a_step_too_fine_for_optunas_arithmetic_is_left_out() -> None:
    space = Space([Float("x", 0.0, 1.0, step=1e-9)])
    distributions = to_distributions(space)
    assert distributions == {"x": FloatDistribution(0.0, 1.0)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        config = suggest(space, study.ask())
        space.validate(config)
        study.add_trial(optuna.create_trial(params=config, distributions=distributions, value=0))


@settings(deadline=None, max_examples=60)
@given(spaces(conditional=False))
def test_distributions_round_trip(space: Space) -> None:
    distributions = to_distributions(space)
    again = from_distributions(distributions)
    assert to_distributions(again) == distributions
    assert again.names == space.names


@pytest.mark.parametrize("choices", [(None, "None"), ((1, 2), 3), (1, True)])
def test_a_choice_without_counterpart_is_an_error(choices: Any) -> None:
    distribution = CategoricalDistribution.__new__(CategoricalDistribution)
    distribution.choices = choices
    with pytest.raises(SpaceError, match="x: values must"):
        from_distributions({"x": distribution})


@settings(deadline=None, max_examples=60)
@given(spaces_with_configs())
def test_internal_values_round_trip(drawn: tuple[Space, dict[str, Value]]) -> None:
    space, config = drawn
    internal = to_internal(space, config)
    assert from_internal(space, internal) == config
    distributions = to_distributions(space)
    assert all(
        distributions[name]._contains(distributions[name].to_internal_repr(value))
        for name, value in internal.items()
    )


def test_internal_values_of_inactive_parameters_are_left_out() -> None:
    params = {**to_internal(SPACE, SPACE.default()), "rate_drop": 0.3}
    assert from_internal(SPACE, params) == SPACE.default()
    with pytest.raises(ConfigurationError, match="lr is missing"):
        from_internal(SPACE, {})
    with pytest.raises(ConfigurationError, match="batch must be an index below 3, got 3"):
        from_internal(SPACE, {**params, "batch": 3})


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", ["RandomSampler", "TPESampler"])
def test_a_study_suggests_canonical_configurations(name: str) -> None:
    groups = {"multivariate": True, "group": True} if name == "TPESampler" else {}
    sampler = getattr(optuna.samplers, name)(seed=0, **groups)
    study = optuna.create_study(sampler=sampler)
    seen = set()
    for number in range(25):
        trial = study.ask()
        config = suggest(SPACE, trial)
        SPACE.validate(config)
        assert set(trial.params) == set(config)
        assert from_internal(SPACE, trial.params) == config
        seen.add("rate_drop" in config)
        study.tell(trial, float(number))
    assert seen == {False, True}


@settings(deadline=None, max_examples=40)
@given(spaces(), st.integers(0, 1000))
def test_suggestions_for_any_space_are_canonical(space: Space, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    space.validate(suggest(space, study.ask()))


def test_a_finished_trial_can_be_added_with_its_values() -> None:
    config = {**SPACE.default(), "batch": 128}
    study = optuna.create_study()
    distributions = to_distributions(SPACE)
    params = to_internal(SPACE, config)
    study.add_trial(
        optuna.create_trial(
            params=params, distributions={name: distributions[name] for name in params}, value=1.0
        )
    )
    assert study.trials[0].params["batch"] == 2
    assert from_internal(SPACE, study.trials[0].params) == config
