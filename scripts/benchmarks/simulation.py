"""Runs one study of a comparison: the real loop, on a problem whose trials take no time.

The loop gets a simulated executor and clock and asks the Creator in its own thread. Nothing is
stored: that would add the same time to each trial of every Creator.
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

from localhpo.creator import Creator, History
from localhpo.errors import ConfigurationError
from localhpo.executor import Replay, SimulatedExecutor
from localhpo.executor.clock import SimulatedClock
from localhpo.llm.protocol import Backend
from localhpo.resources.placement import Inventory
from localhpo.scheduler.loop import Loop, LoopSettings, StoredStudy
from localhpo.scheduler.running_trials import ExecutionTarget
from localhpo.scheduler.trial_table import TrialTable
from localhpo.space import Space
from localhpo.task import Task
from localhpo.transfer import PastStudy
from localhpo.trial import (
    COUNTED,
    Config,
    Measurement,
    Origin,
    Proposal,
    State,
    Trial,
    values_of,
)
from scripts.benchmarks.problems.problem import Problem
from scripts.benchmarks.results import TrialRow

_SETTINGS = LoopSettings(concurrent_proposals=False, max_initial_failures=0)

FALLBACK_NOTE = "fallback for the model"
"""Part of the note of a proposal that an engine made because the model failed."""


def run_study(problem: Problem, creator: Creator, *, seed: int, trials: int) -> list[TrialRow]:
    """Run one study and return its trials, by number.

    Args:
        problem: the problem to tune.
        creator: proposes; the caller closes it.
        seed: number of the repetition; all Creators get the same random numbers with it.
        trials: budget of the study.

    Raises:
        LocalHPOError: the Creator failed.
    """
    task = dataclasses.replace(
        problem.task, budget=dataclasses.replace(problem.task.budget, trials=trials)
    )
    clock = SimulatedClock()
    timed = _TimedCreator(creator)
    target = ExecutionTarget(
        executor=SimulatedExecutor(lambda config, _: replay_trial(problem, config), clock),
        inventory=Inventory(cpus=1),
        trial_folder=lambda number: Path(f"trial-{number}"),  # nothing is written there
        clock=clock,
    )
    table = TrialTable(
        (), recorder=_NullRecorder(), clock=clock, seed=study_seed(problem.name, seed)
    )
    loop = Loop(task, timed, target, StoredStudy(table), settings=_SETTINGS)
    ended = [trial for trial in loop.run() if trial.state in COUNTED]
    return to_trial_rows(ended, task, timed.seconds)


def study_seed(problem: str, seed: int) -> int:
    """Return the seed of a study: the same for every Creator, another for each problem."""
    digest = hashlib.sha256(f"{problem}/{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def replay_trial(problem: Problem, config: Config) -> Replay:
    """Return a simulated trial; a configuration outside of the space fails."""
    value = problem.evaluate(config) if _is_valid(problem.space, config) else math.nan
    return Replay([Measurement(0, problem.task.metric, value, 0.0)], duration_s=0.0)


def _is_valid(space: Space, config: Config) -> bool:
    try:
        space.validate(config)
    except ConfigurationError:
        return False
    return True


def to_trial_rows(
    trials: Sequence[Trial], task: Task, seconds: Mapping[int, float]
) -> list[TrialRow]:
    """Return the trials of a study as rows of the results.

    Args:
        trials: those that ended, by number.
        task: task of the study.
        seconds: duration of each proposal, by number of the trial.
    """
    rows: list[TrialRow] = []
    known: set[str] = set()
    for trial in trials:
        proposal, invalid = trial.proposal, not _is_valid(task.space, trial.config)
        config = json.dumps(dict(trial.config)) if invalid else task.space.text(trial.config)
        rows.append(
            TrialRow(
                number=trial.number,
                state=str(trial.state),
                value=trial.value,
                config=config,
                origin=str(proposal.origin),
                tries=proposal.tries,
                seconds=seconds.get(trial.number, 0.0),
                prompt_tokens=proposal.prompt_tokens,
                completion_tokens=proposal.completion_tokens,
                repeated=config in known,
                invalid=invalid,
                note=proposal.note,
                training_s=trial.usage.wall_s,
                test=_test_value(trial, task),
            )
        )
        known.add(config)
    return rows


def _test_value(trial: Trial, task: Task) -> float | None:
    """Return the last finite test value of a trial: `test_f1` beside the metric `val_f1`."""
    name = f"test_{task.metric.removeprefix('val_')}"
    values = [value for _, value in values_of(trial.measurements, name) if math.isfinite(value)]
    return values[-1] if values else None


def run_past_study(problem: Problem, creator: Creator, *, seed: int, trials: int) -> PastStudy:
    """Run a study of a problem and return it as a past study, as a user's own would be.

    Args:
        problem: a problem that is not part of the comparison.
        creator: proposes; the caller closes it.
        seed: number of the repetition.
        trials: budget of the study.

    Raises:
        LocalHPOError: the Creator failed.
    """
    rows = run_study(problem, creator, seed=seed, trials=trials)
    ended = tuple(_to_trial(row) for row in rows if not row.invalid)
    return PastStudy(f"{problem.task.name}/{problem.task.metric}-{seed}", problem.task, ended)


def _to_trial(row: TrialRow) -> Trial:
    proposal = Proposal(json.loads(row.config), origin=Origin.parse(row.origin))
    return Trial(
        row.number, State(row.state), proposal, values=() if row.value is None else (row.value,)
    )


class _TimedCreator:
    """Measures the time of each proposal of a Creator, whatever the Creator itself reports."""

    def __init__(self, creator: Creator) -> None:
        self._creator = creator
        self.seconds: dict[int, float] = {}
        """Duration of each proposal, by number of the trial."""

    @property
    def name(self) -> str:
        return self._creator.name

    @property
    def backend(self) -> Backend | None:
        """Backend of the model that the Creator asks; None where it asks none."""
        return self._creator.backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        started = time.perf_counter()
        proposals = self._creator.propose(history, n)
        share = (time.perf_counter() - started) / max(1, len(proposals))
        for offset in range(len(proposals)):
            self.seconds[history.next_number + offset] = share
        return proposals

    def close(self) -> None:
        """Do nothing: the owner of the Creator closes it."""


class _NullRecorder:
    """A recorder that stores nothing: the loop returns all trials at its end."""

    def write_trial(self, trial: Trial) -> None:
        pass

    def write_measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        pass

    def write_event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        pass

    def flush(self, *, wait_s: float = 0.0) -> bool:  # noqa: ARG002 - part of the protocol
        return True
