"""What should have been tried: good configurations of a task, known only afterwards.

Twenty trials show a few good configurations, and by luck where they lie exactly. So a process is
fitted to the trials of each study (`creator.bayes.surrogate`), and what a model is to answer is
drawn from trials and crosses of good ones, by what the process expects of them there and on the
similar tasks: the least mean regret over its owner's problems is what a first trial on
the next one wants.

Regret: 0 is the best that is known of a task, 1 its median trial. Shapes: S studies,
C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localhpo.creator.bayes.surrogate import canonical_or_none, expected_regret
from localhpo.finetune.quantization import quantize_config
from localhpo.space import Space
from localhpo.transfer import PastStudy, similarity
from localhpo.trial import Config, State, Trial, Value

Array = NDArray[np.float64]

SHARPNESS = 0.1
"""Of answers: one is e times as likely as another whose regret is larger by this."""

OWN_TRIALS = 4
"""Trials shown after which the study itself counts as much as all similar ones together."""

ALIKE = 0.5
"""Similarity from which what was good on one task is taken to be good on the other."""

_CROSSES = 160
_PARENTS = 12


@dataclass(frozen=True)
class AnswerCandidates:
    """Candidates for the answers on one task, and how good they are."""

    space: Space
    configs: Sequence[dict[str, Value]]
    """In coarse values, each once."""
    own: Array
    """(C,): regret on the task itself."""
    similar: Array
    """(C,): mean regret on the similar tasks; that on the task itself where there are none."""

    def draw(
        self, taken: Sequence[Trial], count: int, rng: np.random.Generator
    ) -> list[dict[str, Value]]:
        """Return what to answer after the trials `taken`, none of them; good ones are likelier.

        Args:
            taken: shown in the prompt.
            count: at most as many are returned.
            rng: draws.
        """
        own = (1 + len(taken)) / (1 + len(taken) + OWN_TRIALS)
        regret = own * self.own + (1.0 - own) * self.similar
        known = {self.space.key(trial.config) for trial in taken}
        known |= {self.space.key(quantize_config(self.space, trial.config)) for trial in taken}
        score = -regret / SHARPNESS + rng.gumbel(size=len(regret))
        order = [int(i) for i in np.argsort(-score)]
        fresh = [i for i in order if self.space.key(self.configs[i]) not in known]
        return [self.configs[i] for i in fresh[:count]]


def find_candidates(
    past_study: PastStudy, others: Sequence[PastStudy], rng: np.random.Generator
) -> AnswerCandidates:
    """Return the candidates for one task.

    Args:
        past_study: with at least one complete trial.
        others: what may be learned from beside it; those that are not `ALIKE` are left out.
        rng: draws crosses.
    """
    space = past_study.task.space
    peers = [
        p
        for p in others
        if p is not past_study and similarity(past_study.task, p.task).value >= ALIKE
    ]
    studies = [past_study, *peers]
    refused = {space.key(t.config) for t in past_study.trials if t.state is State.FAILED}
    configs = _candidates(studies, space, refused, rng)
    regrets = np.array(
        [expected_regret(space, study.task.direction, study.trials)(configs) for study in studies]
    )
    similar = regrets[1:].mean(axis=0) if peers else regrets[0]
    return AnswerCandidates(space, configs, regrets[0], similar)


def _candidates(
    studies: Sequence[PastStudy], space: Space, refused: set[str], rng: np.random.Generator
) -> list[dict[str, Value]]:
    """Return trials of all studies and crosses of the best of each, in coarse values, once."""
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
    """Return a mix of two of the best, moved a little."""
    one, other = (space.encode(best[i]) for i in rng.choice(len(best), 2))
    point = np.where(rng.uniform(size=one.shape) < 0.5, one, other)
    return space.decode(np.clip(point + rng.normal(0.0, 0.07, point.shape), 0.0, 1.0))
