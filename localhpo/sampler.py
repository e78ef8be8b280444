"""`LocalHPOSampler`: the Creator inside an Optuna study.

    study = optuna.create_study(sampler=LocalHPOSampler(background="what is tuned"))
    study.optimize(objective, n_trials=10)

The Creator needs to know the whole space before it proposes. Give it as `space` (Optuna
distributions, or a `Space`). Without it the first trial takes the center of each range, and later
ones use the parameters that all finished trials have in common. A parameter outside that
space is sampled at random. A study ends when every configuration of its space was tried.

Studies may have several objectives and constraints. The creators `nsga2`, `tpe`, `gp` and `random`
take all of them; `hybrid`, `agent` and `bo` optimize the first objective, and warn of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import TrialState

from localhpo.creator import CREATORS, Creator, History, describe_ignored_goals, open_creator
from localhpo.creator.registry import FIRST_OBJECTIVE_ONLY
from localhpo.errors import InputError, SpaceError, SpaceExhaustedError
from localhpo.objective import Constraint, Direction, Objective
from localhpo.space import Space
from localhpo.space.optuna import (
    NONE_NAME,
    from_distributions,
    from_internal,
    to_distributions,
    to_internal,
)
from localhpo.task import Budget, CreatorSettings, Task, fixed_of
from localhpo.trial import USER, Config, Measurement, Origin, Proposal, State, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
    TrialState.RUNNING: State.RUNNING,
    TrialState.WAITING: State.QUEUED,
}
_ENGINE_STATE = "localhpo:engine_state"
_ORIGIN = "localhpo:origin"
_RATIONALE = "localhpo:rationale"
_CHUNK = 2000
"""Characters of an attribute; a relational storage takes 2,045."""
_VALUE = "value"
"""Name of an objective, as in Optuna's data frames: `value`, or `value_0`, `value_1`, ..."""
_CONSTRAINTS = "constraints"
"""System attribute in which Optuna keeps constraint values: a list, or with Optuna 5 also one
attribute `constraints:NAME` for each."""


_ONE_AT_A_TIME = threading.Lock()
"""Held while a Creator works: Optuna's `n_jobs` are threads, and only one of them may load a model.
A lock of the module, so that the sampler can be pickled."""


class LocalHPOSampler(BaseSampler):  # type: ignore[misc]  # optuna ships no usable stubs here
    """Samples by a LocalHPO Creator.

    Args:
        space: the search space, where it is known beforehand.
        background: description of the task in plain words, for the model.
        fixed: hyperparameters that the objective does not suggest, and their values. The model
            sees them, since good values of others may depend on them.
        creator: name of the creator, or its settings.
        trials: how many trials are planned, where known.
        seed: seed of every random choice; the same seed gives the same engine proposals.
        constraints_func: returns the constraint values of a finished trial, <= 0 where they hold,
            as for Optuna's samplers. With Optuna 5 the objective may call `Trial.set_constraint`
            instead.

    Raises:
        InputError: there is no creator of that name.
        PluginError: it is that of a plug-in which cannot be imported.
    """

    def __init__(
        self,
        space: Space | Mapping[str, BaseDistribution] | None = None,
        *,
        background: str = "",
        fixed: Config | None = None,
        creator: CreatorSettings | str = "hybrid",
        trials: int | None = None,
        seed: int = 0,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ) -> None:
        self._space: Space | None = None
        self._distributions: dict[str, BaseDistribution] = {}
        if isinstance(space, Space):
            self._space, self._distributions = space, to_distributions(space)
        elif space is not None:
            self._space, self._distributions = from_distributions(space), dict(space)
        self._background = background
        self._fixed = dict(fixed or {})
        self._settings = CreatorSettings(name=creator) if isinstance(creator, str) else creator
        CREATORS.check(self._settings.name)
        self._budget = Budget(trials=trials)
        self._seed = seed
        self._common = IntersectionSearchSpace()
        self._random = RandomSampler(seed=seed)
        self._in_flight: dict[int, Config] = {}
        self._constraints_func = constraints_func
        self._creator: Creator | None = None
        self._creator_key: tuple[str, bool] | None = None
        self._has_warned = False

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002 - Optuna's signature
    ) -> dict[str, BaseDistribution]:
        """Return the space that the Creator proposes in."""
        if self._space is not None:
            return self._distributions
        common = self._common.calculate(study)
        return {n: one for n, one in common.items() if not one.single() and _has_counterpart(one)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the Creator's next configuration, in Optuna's terms."""
        if not search_space:
            return {}
        space = self._space or from_distributions(search_space)
        with _ONE_AT_A_TIME:
            past = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
            task = self._task(study, space, past)
            self._warn_of_first_objective(task)
            trials = [known for one in past for known in self._convert_trial(one, task)]
            history = History(task, tuple(trials), seed=self._seed, next_number=trial.number)
            try:
                (proposal,) = self._creator_for(task).propose(history, 1)
            except SpaceExhaustedError:
                if any(set(search_space) < _varied(one) for one in past):
                    return {}  # only the parameters that all trials have in common are exhausted
                raise
            self._in_flight[trial.number] = proposal.config
        storage, number = study._storage, trial._trial_id
        for key, chunk in _to_chunks(proposal.engine_state).items():
            storage.set_trial_system_attr(number, key, chunk)
        storage.set_trial_system_attr(number, _ORIGIN, str(proposal.origin))
        storage.set_trial_system_attr(number, _RATIONALE, proposal.rationale[:_CHUNK])
        internal = to_internal(space, proposal.config)
        return {name: _choice(value, search_space[name]) for name, value in internal.items()}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the center of the range in the first trial, a random value later.

        It is random from the start where a choice is neither a number, a text nor None.
        """
        if trial.number == 0 and _has_counterpart(param_distribution):
            alone = from_distributions({param_name: param_distribution})
            return _choice(to_internal(alone, alone.default())[param_name], param_distribution)
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,  # noqa: ARG002 - Optuna's signature
    ) -> None:
        """Store the trial's constraint values; end the study where nothing new is left."""
        self._in_flight.pop(trial.number, None)
        self._store_constraints(study, trial, state)
        past = study.get_trials(deepcopy=False)
        space = self._whole_space(past)
        if space is None or len(past) < space.cardinality:
            return
        task = self._task(study, space, past)
        tried = {
            space.key(known.config) for one in past for known in self._convert_trial(one, task)
        }
        if len(tried) >= space.cardinality:
            with contextlib.suppress(RuntimeError):  # with ask and tell there is nothing to end
                study.stop()

    def reseed_rng(self) -> None:
        """Reseed random values only: proposals depend on the trial's number, not on a state."""
        self._random.reseed_rng()

    def close(self) -> None:
        """Free the model, where one was loaded."""
        if self._creator is not None:
            self._creator.close()
            self._creator = None

    def _convert_trial(self, trial: FrozenTrial, task: Task) -> Sequence[Trial]:
        """Return the trial as one of LocalHPO; none where it lacks a parameter of the space."""
        # Another thread may not have suggested the values of its proposal yet.
        proposed = self._in_flight.get(trial.number)
        try:
            config = task.space.canonical(proposed or from_internal(task.space, trial.params))
            return (_from_frozen_trial(trial, config, task),)
        except (InputError, KeyError):
            return ()

    def _whole_space(self, trials: Sequence[FrozenTrial]) -> Space | None:
        """Return the space of the study; None while trials differ in their parameters."""
        if self._space is not None:
            return self._space
        first = trials[0].distributions
        is_same = all(one.distributions == first for one in trials)
        if not is_same or not first or not all(map(_has_counterpart, first.values())):
            return None
        return from_distributions(first)

    def _task(self, study: Study, space: Space, past: Sequence[FrozenTrial]) -> Task:
        return Task(
            name=study.study_name,
            command=(),
            objectives=_objectives(study),
            constraints=self._constraints(past),
            space=space,
            background=self._background,
            fixed=fixed_of(self._fixed, space, "fixed"),
            budget=self._budget,
            creator=self._settings,
            seed=self._seed,
        )

    def _constraints(self, past: Sequence[FrozenTrial]) -> tuple[Constraint, ...]:
        """Return the constraints that trials have values of; at least one where they are computed.

        Optuna does not say how many there will be before the first trial has finished.
        """
        names = dict.fromkeys(name for trial in past for name in _constraint_values(trial))
        if not names and self._constraints_func is not None:
            names = {_constraint_name(0): None}
        return tuple(Constraint(name, max=0.0) for name in names)

    def _store_constraints(self, study: Study, trial: FrozenTrial, state: TrialState) -> None:
        """Compute the constraint values of a trial and keep them where Optuna does.

        Raises:
            InputError: one of them is NaN.
        """
        if self._constraints_func is None or state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        values = [float(value) for value in self._constraints_func(trial)]
        if any(map(math.isnan, values)):
            raise InputError(
                f"constraints_func must return numbers; got {values} for trial {trial.number}"
            )
        study._storage.set_trial_system_attr(trial._trial_id, _CONSTRAINTS, values)

    def _warn_of_first_objective(self, task: Task) -> None:
        """Warn once where the creator optimizes less than the study asks for."""
        ignored = describe_ignored_goals(task, self._settings.name)
        if ignored and not self._has_warned:
            self._has_warned = True
            warnings.warn(ignored, UserWarning, stacklevel=2)

    def _creator_for(self, task: Task) -> Creator:
        """Return the Creator; it is opened again when the space has changed.

        One that takes constraints is opened again when the first is known: it may refuse them.
        """
        takes_all = self._settings.name not in FIRST_OBJECTIVE_ONLY
        constrained = bool(task.constraints) and takes_all
        key = (task.space.signature(), constrained)
        if self._creator is None or self._creator_key != key:
            self.close()
            self._creator = open_creator(task)
            self._creator_key = key
        return self._creator


def _objectives(study: Study) -> tuple[Objective, ...]:
    """Return the objectives of a study, with the names of its metrics where there are several."""
    directions: list[Direction] = [
        "maximize" if direction is StudyDirection.MAXIMIZE else "minimize"
        for direction in study.directions
    ]
    if len(directions) == 1:
        return (Objective(_VALUE, directions[0]),)
    names = study.metric_names or [f"{_VALUE}_{index}" for index in range(len(directions))]
    return tuple(
        Objective(name, direction) for name, direction in zip(names, directions, strict=True)
    )


def _constraint_name(index: int) -> str:
    return f"constraint_{index}"


def _constraint_values(trial: FrozenTrial) -> dict[str, float]:
    """Return the constraint values of a trial by name, <= 0 where they hold."""
    attrs = trial.system_attrs
    listed = enumerate(attrs.get(_CONSTRAINTS) or ())
    values = {_constraint_name(index): value for index, value in listed}
    prefix = f"{_CONSTRAINTS}:"
    named = {key.removeprefix(prefix): attrs[key] for key in attrs if key.startswith(prefix)}
    return {**values, **named}


def _to_chunks(state: Mapping[str, Any]) -> dict[str, str]:
    """Return an engine's state in attributes short enough for all of Optuna's storages."""
    text = json.dumps(dict(state)) if state else ""
    starts = range(0, len(text), _CHUNK)
    return {f"{_ENGINE_STATE}:{n}": text[start : start + _CHUNK] for n, start in enumerate(starts)}


def _from_chunks(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an engine's state from its attributes; empty where there are none."""
    keys = [key for key in attrs if key.startswith(f"{_ENGINE_STATE}:")]
    text = "".join(attrs[key] for key in sorted(keys, key=lambda key: int(key.rsplit(":")[-1])))
    state: dict[str, Any] = json.loads(text) if text else {}
    return state


def _varied(trial: FrozenTrial) -> set[str]:
    """Return the parameters of a trial that have more than one value."""
    return {name for name, one in trial.distributions.items() if not one.single()}


def _has_counterpart(distribution: BaseDistribution) -> bool:
    """Return whether a hyperparameter of LocalHPO can have this distribution."""
    try:
        from_distributions({"it": distribution})
    except SpaceError:
        return False
    return True


def _choice(value: Any, distribution: BaseDistribution) -> Any:
    """Return a value as a choice of the distribution: the text `None` may stand for None."""
    choices = getattr(distribution, "choices", ())
    return None if value == NONE_NAME and None in choices else value


def _from_frozen_trial(trial: FrozenTrial, config: Config, task: Task) -> Trial:
    attrs = trial.system_attrs
    state = _STATES[trial.state]
    steps = sorted(trial.intermediate_values.items())
    values: Sequence[float] = ()
    if state is State.COMPLETE:
        values = trial.values or ()
    elif state is State.PRUNED and steps:
        values = (steps[-1][1],)
    known = _constraint_values(trial)
    violations = [known.get(constraint.name, math.nan) for constraint in task.constraints]
    return Trial(
        number=trial.number,
        state=state,
        proposal=Proposal(
            config=config,
            origin=Origin.parse(attrs.get(_ORIGIN, str(USER))),
            engine_state=_from_chunks(attrs),
        ),
        values=tuple(values),
        violations=tuple(violations) if values else (),
        measurements=tuple(Measurement(s, task.metric, v, 0.0) for s, v in steps),
    )
