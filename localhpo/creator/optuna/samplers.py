"""The engines: which of Optuna's samplers each one is, and its settings.

Settings are those a well-informed user would choose for ten to a few hundred trials: ten random
trials before TPE and GP begin, which are the defaults, would leave a small study to chance, and
so would a first generation of fifty in NSGA-II.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from localhpo.errors import InputError, MissingExtraError
from localhpo.llm import offline
from localhpo.space import Categorical, Int, Parameter

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from localhpo.task import Task


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One engine."""

    make_sampler: Callable[[int, Mapping[str, Any]], BaseSampler]
    """Makes the sampler from a seed and the options of `_constraint_options`."""
    startup: int
    """Trials with a value that it needs before it proposes anything but random draws."""
    tries: int
    """Draws before a substitute is taken; few where one is expensive."""
    draws_at_random: Callable[[Parameter], bool]
    """Whether it does not model such a parameter, and draws it at random."""
    single_objective: bool = False
    """Whether it optimizes one objective only, and ignores constraints."""
    needs_torch: bool = False
    max_int_values: float = math.inf
    """Values of an int at most, where it lists them all for each proposal."""
    foreign_attrs: Mapping[str, Any] = field(default_factory=dict)
    """System attributes for complete trials that the engine did not propose itself."""


def _make_random(seed: int, constraints: Mapping[str, Any]) -> BaseSampler:  # noqa: ARG001  # same shape as its siblings
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _make_tpe(seed: int, constraints: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=seed,
        multivariate=True,
        group=True,  # one joint model per branch of a conditional space
        n_startup_trials=TPE_STARTUP,
        constant_liar=True,  # running trials count as poor ones, so parallel proposals differ
        **constraints,
    )


def _make_gp(seed: int, constraints: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(
        seed=seed, n_startup_trials=GP_STARTUP, warn_independent_sampling=False, **constraints
    )


def _make_cmaes(seed: int, constraints: Mapping[str, Any]) -> BaseSampler:  # noqa: ARG001
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _make_nsga2(seed: int, constraints: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=NSGA2_POPULATION, **constraints)


def _constraint_options(constrained: bool) -> Mapping[str, Any]:
    """Return the arguments that make a sampler use constraint values.

    Optuna 5 sees it by the trials, and warns of the argument that earlier versions need. The
    function itself is never called: the trials of a history carry their values already.
    """
    from optuna.trial import FrozenTrial

    if not constrained or hasattr(FrozenTrial, "constraints"):
        return {}
    return {"constraints_func": lambda _: ()}


def make_sampler(name: str, seed: int, *, constrained: bool) -> BaseSampler:
    """Return a fresh sampler of an engine."""
    return ENGINES[name].make_sampler(seed, _constraint_options(constrained))


def _models_all(parameter: Parameter) -> bool:  # noqa: ARG001  # same shape as its siblings
    return False


def _is_conditional(parameter: Parameter) -> bool:
    return bool(parameter.when)


def _is_conditional_or_categorical(parameter: Parameter) -> bool:
    return _is_conditional(parameter) or isinstance(parameter, Categorical)


TPE_STARTUP = 5
GP_STARTUP = 3
NSGA2_POPULATION = 20
_NSGA2_GENERATION = "NSGAIISampler:generation"
"""System attribute that holds a trial's generation."""

ENGINES: Mapping[str, EngineSettings] = {
    "random": EngineSettings(_make_random, startup=0, tries=32, draws_at_random=_models_all),
    "tpe": EngineSettings(_make_tpe, startup=TPE_STARTUP, tries=16, draws_at_random=_models_all),
    "gp": EngineSettings(
        _make_gp,
        startup=GP_STARTUP,
        tries=3,
        draws_at_random=_is_conditional,
        needs_torch=True,
        max_int_values=1_000_000,
    ),
    "cmaes": EngineSettings(
        _make_cmaes,
        startup=1,
        tries=16,
        draws_at_random=_is_conditional_or_categorical,
        single_objective=True,
    ),
    "nsga2": EngineSettings(
        _make_nsga2,
        startup=NSGA2_POPULATION,
        tries=32,
        draws_at_random=_is_conditional,
        # Enqueued, default and imported trials are parents of the first generation too.
        foreign_attrs={_NSGA2_GENERATION: 0},
    ),
}


def import_requirements(name: str) -> None:
    """Import what an engine needs beyond the core install.

    Done when a Creator is opened, before trials run: on import, torch settles how its threads
    wait, by environment variables that no trial should inherit.

    Raises:
        MissingExtraError: it needs torch, which is not installed.
    """
    if not ENGINES[name].needs_torch:
        return
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", f"the {name} engine", "local")
    with offline.imported_offline():
        importlib.import_module("torch")


def check_task(name: str, task: Task) -> None:
    """Check that an engine can optimize a task.

    Raises:
        SpaceError: an int has more values than it can list.
        InputError: it takes one objective, and there are several or a constraint.
    """
    settings = ENGINES[name]
    for parameter in task.space:
        if isinstance(parameter, Int) and parameter.cardinality > settings.max_int_values:
            raise parameter.error(
                f"the {name} engine lists the values of an int, at most "
                f"{settings.max_int_values:,}; got {parameter.cardinality:,}",
                hint='give it a step, make it a float, or choose the creator "tpe"',
            )
    if settings.single_objective and (len(task.objectives) > 1 or task.constraints):
        goals = [f"objective {one.name} ({one.direction})" for one in task.objectives]
        goals += [f"constraint {one.describe()}" for one in task.constraints]
        raise InputError(
            f"the creator {name!r} needs one objective and no constraints; "
            f"the task has {', '.join(goals)}",
            hint='choose the creator "tpe", "gp" or "nsga2"',
        )
