"""One study of a comparison: the real loop, on a problem whose trials take no time.

The loop gets a simulated executor and clock, asks the Creator in its own thread, and records
in memory: what a store adds is the same for everybody and would be measured with each trial.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localhpo.bench.problems.problem import Problem
from localhpo.creator import Creator, History
from localhpo.errors import ConfigurationError
from localhpo.executor import Replay, SimulatedExecutor
from localhpo.executor.clock import SimulatedClock
from localhpo.scheduler.loop import Loop
from localhpo.scheduler.placement import Inventory
from localhpo.scheduler.settings import LoopSettings
from localhpo.space import Space
from localhpo.store.results import TrialRow
from localhpo.trial import COUNTED, Config, Measurement, Proposal, Trial

_SETTINGS = LoopSettings(concurrent_proposals=False, hopeless_after=0)

STANDS_IN = "stands in for the model"
"""In the note of a proposal that another was made in place of."""


def run(problem: Problem, creator: Creator, *, seed: int, trials: int) -> list[TrialRow]:
    """Run one study and return its trials, by number.

    Args:
        problem: what is tuned.
        creator: who proposes; the caller closes it.
        seed: number of the repetition: with the same one, everybody gets the same luck.
        trials: the budget.

    Raises:
        LocalHPOError: the Creator failed.
    """
    task = dataclasses.replace(
        problem.task, budget=dataclasses.replace(problem.task.budget, trials=trials)
    )
    clock = SimulatedClock()
    watched = _Stopwatch(creator)
    loop = Loop(
        task=task,
        creator=watched,
        executor=SimulatedExecutor(lambda config, _: replay(problem, config), clock),
        recorder=_Nowhere(),
        trials=(),
        seed=study_seed(problem.name, seed),
        trial_folder=lambda number: Path(f"trial-{number}"),  # nobody writes there
        inventory=Inventory(cpus=1),
        clock=clock,
        settings=_SETTINGS,
    )
    ended = [trial for trial in loop.run() if trial.state in COUNTED]
    return rows_of(ended, task.space, watched.seconds)


def study_seed(problem: str, seed: int) -> int:
    """Return the seed of a study: the same for every Creator, another for each problem."""
    digest = hashlib.sha256(f"{problem}/{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def replay(problem: Problem, config: Config) -> Replay:
    """Return a trial of a problem; what is not in the space is never scored, whoever asks."""
    value = problem.evaluate(config) if _is_valid(problem.space, config) else math.nan
    return Replay([Measurement(0, problem.task.metric, value, 0.0)], duration_s=0.0)


def _is_valid(space: Space, config: Config) -> bool:
    try:
        space.validate(config)
    except ConfigurationError:
        return False
    return True


def rows_of(trials: Sequence[Trial], space: Space, seconds: Mapping[int, float]) -> list[TrialRow]:
    """Return what is kept of the trials of a study.

    Args:
        trials: those that ended, by number.
        space: that was searched.
        seconds: that each proposal took, by number.
    """
    rows: list[TrialRow] = []
    for trial in trials:
        known = {row.config for row in rows}
        rows.append(_row(trial, space, known, seconds))
    return rows


def _row(trial: Trial, space: Space, known: set[str], seconds: Mapping[int, float]) -> TrialRow:
    proposal, invalid = trial.proposal, not _is_valid(space, trial.config)
    config = json.dumps(dict(trial.config)) if invalid else space.text(trial.config)
    return TrialRow(
        number=trial.number,
        state=str(trial.state),
        score=trial.score,
        config=config,
        origin=proposal.origin,
        tries=proposal.tries,
        seconds=seconds.get(trial.number, 0.0),
        prompt_tokens=proposal.prompt_tokens,
        completion_tokens=proposal.completion_tokens,
        repeated=config in known,
        invalid=invalid,
        note=proposal.note,
    )


class _Stopwatch:
    """A Creator, timed from outside: what it says of its own time may leave something out."""

    def __init__(self, creator: Creator) -> None:
        self._creator = creator
        self.seconds: dict[int, float] = {}
        """By the number of the trial that was proposed."""

    @property
    def name(self) -> str:
        return self._creator.name

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        started = time.perf_counter()
        proposals = self._creator.propose(history, n)
        share = (time.perf_counter() - started) / max(1, len(proposals))
        for offset in range(len(proposals)):
            self.seconds[history.next_number + offset] = share
        return proposals

    def close(self) -> None:
        """Close nothing: whoever opened the Creator does."""


class _Nowhere:
    """A recorder that keeps nothing: the loop returns all trials at its end."""

    def trial(self, trial: Trial) -> None:
        pass

    def measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        pass

    def event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        pass

    def flush(self, *, wait_s: float = 0.0) -> bool:  # noqa: ARG002 - the protocol's
        return True
