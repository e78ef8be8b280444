"""The engines: which of Optuna's samplers each is, and how it is set.

Settings are those a well-informed user would choose for ten to a few hundred trials: the
defaults of ten random trials before TPE and GP begin would leave a small study to chance.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localhpo.errors import MissingExtraError
from localhpo.llm import offline
from localhpo.space import Categorical, Int, Parameter

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from localhpo.space import Space


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of an engine."""

    sampler: Callable[[int], BaseSampler]
    """Makes the sampler from a seed."""
    startup: int
    """Scored trials that it needs before it proposes anything but random draws."""
    tries: int
    """Draws before a substitute is looked for; few where one is expensive."""
    blind: Callable[[Parameter], bool]
    """Whether it does not model such a parameter, and draws it at random."""


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _tpe(seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=seed,
        multivariate=True,
        group=True,  # one joint model per branch of a conditional space
        n_startup_trials=TPE_STARTUP,
        constant_liar=True,  # running trials count as poor ones, so parallel proposals differ
    )


def _gp(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=GP_STARTUP, warn_independent_sampling=False)


def _cmaes(seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _nothing(parameter: Parameter) -> bool:  # noqa: ARG001  # same shape as its siblings
    return False


def _conditional(parameter: Parameter) -> bool:
    return bool(parameter.when)


def _conditional_or_categorical(parameter: Parameter) -> bool:
    return _conditional(parameter) or isinstance(parameter, Categorical)


TPE_STARTUP = 5
GP_STARTUP = 3

KINDS: Mapping[str, Kind] = {
    "random": Kind(_random, startup=0, tries=32, blind=_nothing),
    "tpe": Kind(_tpe, startup=TPE_STARTUP, tries=16, blind=_nothing),
    "gp": Kind(_gp, startup=GP_STARTUP, tries=3, blind=_conditional),
    "cmaes": Kind(_cmaes, startup=1, tries=16, blind=_conditional_or_categorical),
}

_GP_VALUES = 1_000_000
"""Of an int; Optuna's GP lists them all at every proposal."""


def prepare(name: str) -> None:
    """Import what an engine needs beyond the core install.

    Done when a Creator is opened, before trials run: torch settles how its threads wait as it
    is imported, by variables that no trial should inherit.

    Raises:
        MissingExtraError: gp without torch.
    """
    if name != "gp":
        return
    if not has_torch():
        raise MissingExtraError("torch", "the gp engine", "local")
    with offline.switched_off():
        importlib.import_module("torch")


def check(name: str, space: Space) -> None:
    """Check that an engine can search a space.

    Raises:
        SpaceError: gp, and an int with more values than it can list.
    """
    if name == "gp" and (large := _too_large_for_gp(space)):
        raise large.error(
            f"the gp engine lists the values of an int, at most {_GP_VALUES:,}; "
            f"got {large.cardinality:,}",
            hint='give it a step, make it a float, or choose the creator "tpe"',
        )


def _too_large_for_gp(space: Space) -> Parameter | None:
    return next((p for p in space if isinstance(p, Int) and p.cardinality > _GP_VALUES), None)


def has_torch() -> bool:
    """Return whether torch, which GP needs, is installed; it is not imported."""
    return importlib.util.find_spec("torch") is not None
