"""Relabels the prompts of a past study with the best configurations that are known by now.

A study of twenty trials holds few good configurations, and noise decides which one is best. So a
Gaussian process is fitted to the trials of each study (`creator.bo.surrogate`). Answers are
drawn from its trials and from crosses of its good ones, by their expected regret on this task and
on similar tasks: a first trial on a new task should have a low mean regret over the user's tasks.

Regret: 0 is the best value known of a task, 1 that of its median trial. A study of several
objectives counts by its first one; trials that violate a constraint are no answers. Shapes: C
candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localhpo.creator.bo.surrogate import Surrogate, canonical_or_none, expected_regret
from localhpo.space import Float, Int, Space
from localhpo.transfer import PastStudy, similarity, to_single_objective
from localhpo.trial import Config, State, Trial, Value

Array = NDArray[np.float64]

SHARPNESS = 0.1
"""An answer is e times as likely as another whose regret is larger by this."""

OWN_TRIALS = 4
"""Number of shown trials from which the study itself counts as much as all similar ones."""

MIN_TASK_SIMILARITY = 0.5
"""Similarity of tasks from which good configurations of one are used for the other."""

_CROSSES = 160
_PARENTS = 12


@dataclass(frozen=True)
class AnswerCandidates:
    """Candidate answers on one task, with their expected regret."""

    space: Space
    configs: Sequence[dict[str, Value]]
    """Quantized, each once."""
    own: Array
    """(C,): expected regret on the task itself."""
    similar: Array
    """(C,): mean expected regret on similar tasks; where there are none, the same as `own`."""

    def draw(
        self, shown: Sequence[Trial], count: int, rng: np.random.Generator
    ) -> list[dict[str, Value]]:
        """Return answers to a prompt, good ones with a higher probability.

        Args:
            shown: trials in the prompt, none of which is an answer.
            count: largest number of answers.
            rng: source of random numbers.
        """
        own = (1 + len(shown)) / (1 + len(shown) + OWN_TRIALS)
        regret = own * self.own + (1.0 - own) * self.similar
        known = {self.space.key(trial.config) for trial in shown}
        known |= {self.space.key(quantize_config(self.space, trial.config)) for trial in shown}
        # Gumbel noise makes the order a draw without replacement from the softmax of -regret.
        noisy = -regret / SHARPNESS + rng.gumbel(size=len(regret))
        order = [int(i) for i in np.argsort(-noisy)]
        new = [i for i in order if self.space.key(self.configs[i]) not in known]
        return [self.configs[i] for i in new[:count]]


def find_candidates(
    past_study: PastStudy, others: Sequence[PastStudy], rng: np.random.Generator
) -> AnswerCandidates:
    """Return the candidate answers on one task.

    Args:
        past_study: a study with at least one complete trial.
        others: other studies; those that are not similar are left out.
        rng: source of random numbers.
    """
    space = past_study.task.space
    peers = [
        p
        for p in others
        if p is not past_study and similarity(past_study.task, p.task).value >= MIN_TASK_SIMILARITY
    ]
    objective = past_study.task.objectives[0]
    studies = [to_single_objective(study, objective) for study in (past_study, *peers)]
    refused = {
        space.key(t.config)
        for t in past_study.trials
        if t.state is State.FAILED or t.feasible is False
    }
    configs = _candidates(studies, space, refused, rng)
    regrets = np.array([_fit_regret(space, study)(configs) for study in studies])
    similar = regrets[1:].mean(axis=0) if peers else regrets[0]
    return AnswerCandidates(space, configs, regrets[0], similar)


def _fit_regret(space: Space, study: PastStudy) -> Surrogate:
    """Return the expected regret on the task of a study, by its feasible trials."""
    feasible = [trial for trial in study.trials if trial.feasible is not False]
    return expected_regret(space, study.task.direction, feasible)


def _candidates(
    studies: Sequence[PastStudy], space: Space, refused: set[str], rng: np.random.Generator
) -> list[dict[str, Value]]:
    """Return the trials of all studies and crosses of the best ones, quantized, each once."""
    tried = [
        c
        for s in studies
        for t in s.ranked_trials
        if (c := canonical_or_none(space, t.config)) is not None
    ]
    best = [
        c
        for s in studies
        for t in s.ranked_trials[: max(2, _PARENTS // len(studies))]
        if (c := canonical_or_none(space, t.config)) is not None
    ]
    crosses = [_cross(space, best, rng) for _ in range(_CROSSES)]
    written = {
        space.key(config): config for config in (quantize_config(space, c) for c in tried + crosses)
    }
    return [config for key, config in written.items() if key not in refused]


def _cross(space: Space, best: Sequence[Config], rng: np.random.Generator) -> dict[str, Value]:
    """Return a cross of two of the best configurations, mutated a little."""
    one, other = (space.encode(best[i]) for i in rng.choice(len(best), 2))
    point = np.where(rng.uniform(size=one.shape) < 0.5, one, other)
    return space.decode(np.clip(point + rng.normal(0.0, 0.07, point.shape), 0.0, 1.0))


_MANTISSAS = np.array([1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0])


def quantize_config(space: Space, config: Config) -> dict[str, Value]:
    """Return the configuration with each number rounded to about twenty values of its range.

    A good value is not known more exactly than that, and short answers are cheap to learn and to
    generate.
    """
    out = dict(config)
    for name, value in config.items():
        parameter = space[name]
        if not isinstance(parameter, Float | Int) or isinstance(value, bool | str):
            continue
        if parameter.log or (isinstance(parameter, Int) and value >= 100):
            rounded = _round_log(float(value))
        elif isinstance(parameter, Int) and value <= 10:
            continue
        else:
            step = _step_size((parameter.high - parameter.low) / 25)
            step = max(1.0, step) if isinstance(parameter, Int) else step
            rounded = round(round(float(value) / step) * step, 12)
        if parameter.low <= rounded <= parameter.high:
            out[name] = round(rounded) if isinstance(parameter, Int) else rounded
    return space.canonical(out)


def _step_size(least: float) -> float:
    """Return the smallest step of ..., 0.5, 1, 2, 5, 10, ... that is at least `least`."""
    decade = 10.0 ** math.floor(math.log10(least))
    return next(m * decade for m in (1.0, 2.0, 5.0, 10.0) if m * decade >= least * 0.999)


def _round_log(value: float) -> float:
    """Return the nearest of the eleven round numbers of its decade."""
    if value <= 0:
        return value
    decade = 10.0 ** math.floor(math.log10(value))
    nearest = _MANTISSAS[np.abs(np.log(_MANTISSAS * decade / value)).argmin()]
    return float(f"{nearest * decade:.3g}")
