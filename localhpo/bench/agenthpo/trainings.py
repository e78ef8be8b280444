"""Trainings that need not run twice: an Executor that remembers those that were completed.

A training is known again by its digest (script, packages, data; see `subjects`), configuration
and seed. It is kept as one file, whole or not at all, so processes share them and a kill loses
only what was under way. One that failed runs again: it may have been the machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from localhpo.errors import StoreError
from localhpo.executor import Executor, Job, Outcome, Run
from localhpo.trial import Measurement, State, Usage


class Trainings:
    """What is known of the trainings of one digest.

    Raises (in every method):
        StoreError: a file cannot be read or written.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Name the folder; it need not exist."""
        self._folder = folder / digest[:16]

    def get(self, job: Job) -> Replayed | None:
        """Return how a training went, if it has been run."""
        path = self._path(job)
        try:
            said = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path}: {error}", hint="delete the file") from error
        outcome = Outcome(
            State.COMPLETE, said["score"], None, Usage(**said["usage"]), said["summary"]
        )
        return Replayed(outcome, tuple(Measurement(*row) for row in said["measurements"]))

    def put(self, job: Job, outcome: Outcome, measurements: Sequence[Measurement]) -> None:
        """Keep a training that was completed."""
        path = self._path(job)
        said = {
            "config": dict(job.config),
            "seed": job.seed,
            "score": outcome.score,
            "usage": dataclasses.asdict(outcome.usage),
            "summary": outcome.summary,
            "measurements": [dataclasses.astuple(m) for m in measurements],
        }
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(said), encoding="utf-8")
            aside.replace(path)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error

    def _path(self, job: Job) -> Path:
        text = f"{job.task.space.key(job.config)}\n{job.seed}"
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


class RememberingExecutor:
    """Runs trials by another Executor, whose opener closes it, unless it knows how they go."""

    def __init__(self, executor: Executor, trainings: Trainings) -> None:
        self._executor = executor
        self._trainings = trainings

    def start(self, job: Job) -> Run:
        """Start the trial, or replay it.

        Raises:
            ExecutorError: as the Executor's own `start`.
            StoreError: what is known cannot be read.
        """
        known = self._trainings.get(job)
        return known or _Remembered(self._executor.start(job), job, self._trainings)

    def close(self) -> None:
        """End whatever still runs, as interrupted."""
        self._executor.close()


class Replayed:
    """A trial that ended before it began."""

    def __init__(self, outcome: Outcome, measurements: Sequence[Measurement]) -> None:
        self.outcome: Outcome | None = outcome
        self._unread = measurements

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported, once."""
        news, self._unread = self._unread, ()
        return news

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """End nothing: it has ended."""


class _Remembered:
    """A trial whose completion is kept."""

    def __init__(self, run: Run, job: Job, trainings: Trainings) -> None:
        self._run = run
        self._job = job
        self._trainings = trainings
        self._measurements: list[Measurement] = []
        self._told = 0
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        if self._outcome is None:
            self._outcome = self._run.outcome
            if self._outcome is not None and self._outcome.state is State.COMPLETE:
                self._measurements += self._run.poll()
                self._trainings.put(self._job, self._outcome, self._measurements)
        return self._outcome

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported since the last call."""
        self._measurements += self._run.poll()
        news = self._measurements[self._told :]
        self._told = len(self._measurements)
        return news

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask it to end."""
        self._run.stop(state)
