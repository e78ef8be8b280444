"""A classical optimizer of Optuna's as a Creator.

Each proposal is drawn by a fresh sampler from a study made of the history, under a seed
derived from the study's seed and the trial's number. There is no state between two calls:
what CMA-ES must remember travels in `Proposal.engine_state`.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.creator import rationale
from localhpo.creator.batch import one_by_one
from localhpo.creator.engines import past
from localhpo.creator.engines.samplers import KINDS, prepare
from localhpo.creator.guard import Guard, Verdict
from localhpo.creator.protocol import History
from localhpo.creator.seeds import derive
from localhpo.trial import Config, Proposal


@dataclass(frozen=True, slots=True)
class _Draw:
    config: Config
    state: Mapping[str, Any]


class Engine:
    """One of `KINDS` as a Creator.

    Args:
        name: random, tpe, gp or cmaes.

    Raises:
        MissingExtraError: gp without torch.
    """

    def __init__(self, name: str) -> None:
        prepare(name)
        self._name = name
        self._kind = KINDS[name]

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return self._name

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            CreatorError: a state that is stored with a trial is damaged.
        """
        return one_by_one(self.propose_one, history, n)

    def propose_one(self, history: History) -> Proposal:
        """Return one new proposal. Raises as `propose` does."""
        started = time.perf_counter()
        guard = Guard(history)
        seed = derive(history, self._name)
        draws = itertools.islice(self._draws(history, seed), self._kind.tries)
        pick = guard.pick(draws, lambda draw: draw.config)
        if pick is None:
            raise RuntimeError("an engine draws without end")
        draw, notes = pick.drawn, self._blind_spots(history, pick.drawn.config)
        if pick.verdict not in (Verdict.NEW, Verdict.NEAR):
            rng = np.random.default_rng(derive(history, "substitute"))
            draw = dataclasses.replace(draw, config=guard.nearest_left(draw.config, rng))
            notes.append(f"{pick.tries} draws were no choice; the nearest one left stands in")
        reason, evidence = rationale.compute(history, draw.config)
        return Proposal(
            config=draw.config,
            origin=f"engine:{self._name}",
            rationale=reason,
            rationale_by="computed",
            evidence=evidence,
            tries=pick.tries,
            seed=seed,
            seconds=time.perf_counter() - started,
            engine_state=draw.state,
            note="; ".join(notes),
        )

    def close(self) -> None:
        """Free nothing: there is no state."""

    def _draws(self, history: History, seed: int) -> Iterator[_Draw]:
        """Yield draws without end.

        A draw that is not used stays in the study as a running trial, so an engine that takes
        those into account looks elsewhere next time.
        """
        from localhpo.space.optuna import suggest

        space = history.task.space
        with past.quiet():
            study = past.study(history, self._kind.sampler(seed))
        while True:
            with past.quiet():
                config = suggest(space, study.ask())
                (*_, asked) = study.get_trials(deepcopy=False)
            yield _Draw(config, dict(asked.system_attrs))

    def _blind_spots(self, history: History, config: Config) -> list[str]:
        space = history.task.space
        names = [name for name in config if self._kind.blind(space[name])]
        return [f"{self._name} does not model {', '.join(names)}: random"] if names else []
