"""Converts spaces and configurations to Optuna's distributions and values, and back.

Floats and ints keep their bounds, `log` and `step`, but a step that divides a float's range into
more than `MAX_STEPS` is left out: Optuna computes in floats and refuses some of its multiples. A
categorical stays a categorical. An ordinal becomes an int, the index in its list: Optuna's
categorical has no order, and samplers learn more where they know it. The choice None, which is
no value of LocalHPO, becomes the text `NONE_NAME`. Distributions have no conditions; `suggest`
evaluates them, define-by-run.

"Internal" values are those that Optuna keeps in `trial.params`: the index of an ordinal, the
value of anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localhpo.errors import ConfigurationError, SpaceError
from localhpo.space.parameters import Categorical, Float, Int, Ordinal, Parameter
from localhpo.space.space import Space
from localhpo.space.values import Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

NONE_NAME = "None"
"""Text that stands for Optuna's choice None."""

MAX_STEPS = 1_000_000
"""Most values of a stepped float for which the step is passed to Optuna."""


def to_distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the distribution of every parameter, conditional ones included."""
    return {parameter.name: _distribution(parameter) for parameter in space}


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(parameter, Float):
        step = _step(parameter)
        return FloatDistribution(parameter.low, parameter.top, log=parameter.log, step=step)
    if isinstance(parameter, Int):
        return IntDistribution(
            parameter.low, parameter.top, log=parameter.log, step=parameter.grid.step
        )
    if isinstance(parameter, Ordinal):
        return IntDistribution(0, len(parameter.values) - 1)
    return CategoricalDistribution(parameter.values)


def _step(parameter: Float) -> float | None:
    return parameter.step if parameter.cardinality <= MAX_STEPS else None


def from_distributions(distributions: Mapping[str, BaseDistribution]) -> Space:
    """Return the space of some distributions: floats, ints and categoricals.

    Raises:
        SpaceError: a distribution has no counterpart, such as a choice that is a list.
    """
    return Space(_parameter(name, distribution) for name, distribution in distributions.items())


def _parameter(name: str, distribution: BaseDistribution) -> Parameter:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(distribution, FloatDistribution):
        low, high = distribution.low, distribution.high
        return Float(name, low, high, log=distribution.log, step=distribution.step)
    if isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        return Int(name, low, high, log=distribution.log, step=distribution.step)
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(name, tuple(name_of_none(choice) for choice in distribution.choices))
    kind = type(distribution).__name__
    raise SpaceError(f"{name}: Optuna's {kind} has no counterpart in LocalHPO")


def name_of_none(choice: Any) -> Any:
    """Return the choice, or `NONE_NAME` for None."""
    return NONE_NAME if choice is None else choice


def to_internal(space: Space, config: Mapping[str, Value]) -> dict[str, Any]:
    """Return a configuration in Optuna's terms, for trials that are added to a study."""
    return {
        name: parameter.index(value) if isinstance(parameter, Ordinal) else value
        for name, value in space.canonical(config).items()
        for parameter in (space[name],)
    }


def from_internal(space: Space, params: Mapping[str, Any]) -> dict[str, Value]:
    """Return the canonical configuration of values in Optuna's terms.

    Values of inactive parameters are left out: a sampler that gets all distributions at once
    returns values for them too.

    Raises:
        ConfigurationError: the value of an active parameter is missing or not in its domain.
    """

    def value(_: int, parameter: Parameter) -> Value:
        if parameter.name not in params:
            raise ConfigurationError(f"{parameter.name} is missing in Optuna's trial")
        return _external(parameter, params[parameter.name])

    return space.build(value)


def suggest(space: Space, trial: BaseTrial) -> dict[str, Value]:
    """Return the canonical configuration that a trial's sampler suggests, define-by-run.

    Only active parameters are suggested. The trial itself keeps the values as they were drawn,
    before they were rounded to the grid.
    """
    return space.build(lambda _, parameter: _external(parameter, _suggested(parameter, trial)))


def _suggested(parameter: Parameter, trial: BaseTrial) -> Any:
    name = parameter.name
    if isinstance(parameter, Float):
        step = _step(parameter)
        return trial.suggest_float(name, parameter.low, parameter.top, log=parameter.log, step=step)
    if isinstance(parameter, Int):
        return trial.suggest_int(
            name, parameter.low, parameter.top, log=parameter.log, step=parameter.grid.step
        )
    if isinstance(parameter, Ordinal):
        return trial.suggest_int(name, 0, len(parameter.values) - 1)
    return trial.suggest_categorical(name, parameter.values)


def _external(parameter: Parameter, value: Any) -> Value:
    if isinstance(parameter, Ordinal):
        if not 0 <= value < len(parameter.values):
            raise ConfigurationError(
                f"{parameter.name} must be an index below {len(parameter.values)}, got {value!r}"
            )
        return parameter.at(value)
    if isinstance(parameter, Float) and parameter.step is not None:
        # Optuna computes low + i * step in floats: the last value may exceed the bound.
        value = min(max(value, parameter.low), parameter.top)
    return parameter.canonical(name_of_none(value))
