"""`LocalHPOSampler`: the Creator inside an Optuna study.

    study = optuna.create_study(sampler=LocalHPOSampler(background="what is tuned"))
    study.optimize(objective, n_trials=10)

The Creator needs to know the whole space before it proposes. Give it as `space` (Optuna
distributions, or a `Space`); without it the first trial takes the center of each range, and
from then on the space is what all finished trials have in common. A parameter outside that
space is sampled at random. A study ends when every configuration of its space was tried.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import TrialState

from localhpo.creator import Creator, History, open_creator
from localhpo.errors import InputError, SpaceError, SpaceExhaustedError
from localhpo.space import Space
from localhpo.space.optuna import (
    NOTHING,
    from_distributions,
    from_internal,
    to_distributions,
    to_internal,
)
from localhpo.task import Budget, CreatorSettings, Task, fixed_of
from localhpo.trial import Config, Direction, Measurement, Proposal, State, Trial

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
_PIECE = 2000
"""Characters; a relational storage takes 2,045."""
_METRIC = "value"


_ONE_AT_A_TIME = threading.Lock()
"""Optuna's `n_jobs` are threads, and in one process models cannot be loaded in two at once. Of
the module, not of the sampler, which stays one that can be pickled."""


class LocalHPOSampler(BaseSampler):  # type: ignore[misc]  # optuna ships no usable stubs here
    """Samples by a LocalHPO Creator; one objective.

    Args:
        space: the search space, where it is known beforehand.
        background: what is tuned, in plain words, for the model.
        fixed: hyperparameters that the objective does not suggest, and their values: the model is
            told them, for what is good may depend on them; the objective is not given them.
        creator: who proposes, and with which model.
        trials: how many trials are planned, where known.
        seed: of every random choice; the same seed gives the same engine proposals.
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
        self._budget = Budget(trials=trials)
        self._seed = seed
        self._common = IntersectionSearchSpace()
        self._random = RandomSampler(seed=seed)
        self._in_flight: dict[int, Config] = {}
        self._creator: Creator | None = None
        self._creator_space: str | None = None

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
        task = self._task(study, space)
        with _ONE_AT_A_TIME:
            past = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
            trials = [known for one in past for known in self._known(one, space)]
            history = History(task, tuple(trials), seed=self._seed, next_number=trial.number)
            try:
                (proposal,) = self._creator_for(task).propose(history, 1)
            except SpaceExhaustedError:
                if any(set(search_space) < _varied(one) for one in past):
                    return {}  # only what all trials have in common is used up
                raise
            self._in_flight[trial.number] = proposal.config
        storage, number = study._storage, trial._trial_id
        for key, piece in _pieces(proposal.engine_state).items():
            storage.set_trial_system_attr(number, key, piece)
        storage.set_trial_system_attr(number, _ORIGIN, proposal.origin)
        storage.set_trial_system_attr(number, _RATIONALE, proposal.rationale[:_PIECE])
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
        state: TrialState,  # noqa: ARG002 - Optuna's signature
        values: Sequence[float] | None,  # noqa: ARG002 - Optuna's signature
    ) -> None:
        """End the study where nothing new is left."""
        self._in_flight.pop(trial.number, None)
        past = study.get_trials(deepcopy=False)
        space = self._whole_space(past)
        if space is None or len(past) < space.cardinality:
            return
        tried = {space.key(known.config) for one in past for known in self._known(one, space)}
        if len(tried) >= space.cardinality:
            with contextlib.suppress(RuntimeError):  # there is nothing to end: ask and tell
                study.stop()

    def reseed_rng(self) -> None:
        """Leave the seed as it is: proposals depend on the trial's number, not on a state."""
        self._random.reseed_rng()

    def close(self) -> None:
        """Free the model, where one was loaded."""
        if self._creator is not None:
            self._creator.close()
            self._creator = None

    def _known(self, trial: FrozenTrial, space: Space) -> Sequence[Trial]:
        """Return the trial in our terms; nothing when it lacks a parameter of the space."""
        proposed = self._in_flight.get(trial.number)  # which another thread is yet to suggest
        try:
            config = space.canonical(proposed or from_internal(space, trial.params))
            return (_in_our_terms(trial, config),)
        except (InputError, KeyError):
            return ()

    def _whole_space(self, trials: Sequence[FrozenTrial]) -> Space | None:
        """Return the space of the study; None while a trial shows that there is more to it."""
        if self._space is not None:
            return self._space
        first = trials[0].distributions
        is_whole = all(one.distributions == first for one in trials)
        if not is_whole or not first or not all(map(_has_counterpart, first.values())):
            return None
        return from_distributions(first)

    def _task(self, study: Study, space: Space) -> Task:
        if len(study.directions) != 1:
            raise InputError(
                f"LocalHPOSampler needs a study with one objective; this one has "
                f"{len(study.directions)}"
            )
        maximize = study.direction is StudyDirection.MAXIMIZE
        direction: Direction = "maximize" if maximize else "minimize"
        return Task(
            name=study.study_name,
            command=(),
            metric=_METRIC,
            direction=direction,
            space=space,
            background=self._background,
            fixed=fixed_of(self._fixed, space, "fixed"),
            budget=self._budget,
            creator=self._settings,
            seed=self._seed,
        )

    def _creator_for(self, task: Task) -> Creator:
        """Return the Creator, made anew when the space has changed."""
        signature = task.space.signature()
        if self._creator is None or self._creator_space != signature:
            self.close()
            self._creator = open_creator(task)
            self._creator_space = signature
        return self._creator


def _pieces(state: Mapping[str, Any]) -> dict[str, str]:
    """Return an engine's state in pieces that any of Optuna's storages can hold."""
    text = json.dumps(dict(state)) if state else ""
    starts = range(0, len(text), _PIECE)
    return {f"{_ENGINE_STATE}:{n}": text[start : start + _PIECE] for n, start in enumerate(starts)}


def _joined(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an engine's state from its pieces; empty where there are none."""
    keys = [key for key in attrs if key.startswith(f"{_ENGINE_STATE}:")]
    text = "".join(attrs[key] for key in sorted(keys, key=lambda key: int(key.rsplit(":")[-1])))
    state: dict[str, Any] = json.loads(text) if text else {}
    return state


def _varied(trial: FrozenTrial) -> set[str]:
    """Return what may differ from trial to trial of what this one was given."""
    return {name for name, one in trial.distributions.items() if not one.single()}


def _has_counterpart(distribution: BaseDistribution) -> bool:
    """Return whether there is a hyperparameter of ours for it."""
    try:
        from_distributions({"it": distribution})
    except SpaceError:
        return False
    return True


def _choice(value: Any, distribution: BaseDistribution) -> Any:
    """Return a value as the distribution has it: what is called `None` may be None."""
    choices = getattr(distribution, "choices", ())
    return None if value == NOTHING and None in choices else value


def _in_our_terms(trial: FrozenTrial, config: Config) -> Trial:
    attrs = trial.system_attrs
    state = _STATES[trial.state]
    steps = sorted(trial.intermediate_values.items())
    score = trial.value if state is State.COMPLETE else None
    if state is State.PRUNED and steps:
        score = steps[-1][1]
    return Trial(
        number=trial.number,
        state=state,
        proposal=Proposal(
            config=config, origin=attrs.get(_ORIGIN, "user"), engine_state=_joined(attrs)
        ),
        score=score,
        measurements=tuple(Measurement(s, _METRIC, v, 0.0) for s, v in steps),
    )
