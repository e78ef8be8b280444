"""A classical optimizer of Optuna as a Creator.

Each proposal is drawn by a fresh sampler from a study made of the history, under a seed
derived from the study's seed and the trial's number. There is no state between two calls:
what CMA-ES and NSGA-II need of earlier trials is kept in `Proposal.engine_state`.
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
from localhpo.creator.candidates import CandidateStatus, DuplicateFilter
from localhpo.creator.optuna import optuna_study
from localhpo.creator.optuna.samplers import (
    ENGINES,
    check_task,
    import_requirements,
    make_sampler,
)
from localhpo.creator.protocol import History, derive_seed, propose_one_by_one
from localhpo.space.optuna import suggest
from localhpo.task import Task
from localhpo.trial import Config, Origin, Proposal


@dataclass(frozen=True, slots=True)
class _Draw:
    config: Config
    state: Mapping[str, Any]


def open_engine(task: Task) -> Engine:
    """Return the engine that a task names.

    Raises:
        InputError: it cannot optimize the task.
        MissingExtraError: gp without torch.
    """
    check_task(task.creator.name, task)
    return Engine(task.creator.name)


class Engine:
    """One of `ENGINES` as a Creator.

    Args:
        name: random, tpe, gp, cmaes or nsga2.

    Raises:
        MissingExtraError: gp without torch.
    """

    def __init__(self, name: str) -> None:
        import_requirements(name)
        self._name = name
        self._settings = ENGINES[name]

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return self._name

    @property
    def backend(self) -> None:
        """None: it asks no language model."""
        return None

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            CreatorError: a state that is stored with a trial is damaged.
        """
        return propose_one_by_one(self.propose_one, history, n)

    def propose_one(self, history: History) -> Proposal:
        """Return one new proposal. Raises as `propose` does."""
        started = time.perf_counter()
        duplicates = DuplicateFilter(history)
        seed = derive_seed(history, self._name)
        draws = itertools.islice(self._draws(history, seed), self._settings.tries)
        selection = duplicates.select(draws, lambda draw: draw.config)
        if selection is None:
            raise RuntimeError("an engine draws without end")
        draw, notes = selection.candidate, self._random_parameters(history, selection.candidate)
        if selection.status not in (CandidateStatus.NEW, CandidateStatus.NEAR_DUPLICATE):
            rng = np.random.default_rng(derive_seed(history, "substitute"))
            draw = dataclasses.replace(draw, config=duplicates.nearest_untried(draw.config, rng))
            notes.append(
                f"all {selection.tries} draws were duplicates or invalid: "
                "the nearest untried configuration is chosen"
            )
        reason, evidence = rationale.compute_rationale(history, draw.config)
        return Proposal(
            config=draw.config,
            origin=Origin(engine=self._name),
            rationale=reason,
            rationale_by="computed",
            evidence=evidence,
            tries=selection.tries,
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
        space = history.task.space
        constrained = bool(history.task.constraints)
        with optuna_study.quiet():
            sampler = make_sampler(self._name, seed, constrained=constrained)
            study = optuna_study.build_study(history, sampler, self._settings.foreign_attrs)
        while True:
            with optuna_study.quiet():
                config = suggest(space, study.ask())
                (*_, asked) = study.get_trials(deepcopy=False)
            yield _Draw(config, dict(asked.system_attrs))

    def _random_parameters(self, history: History, draw: _Draw) -> list[str]:
        """Return a note on the parameters that the engine does not model; empty without any."""
        space = history.task.space
        names = [name for name in draw.config if self._settings.draws_at_random(space[name])]
        if not names:
            return []
        return [f"{self._name} does not model {', '.join(names)}: drawn at random"]
