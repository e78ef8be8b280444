"""A cache of completed trainings, so that none runs twice, and an Executor that uses it.

The key of a training is its digest (script, packages, data; see `subjects`), its configuration and
its seed. Each is a file, written atomically, so processes share the cache and a kill loses only
running trainings. A failed training runs again, because the machine may have been the cause.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from localhpo.errors import StoreError
from localhpo.executor import Executor, Job, Outcome, Run
from localhpo.trial import Measurement, State, Usage


class TrainingCache:
    """The cached trainings of one digest.

    Raises (in every method):
        StoreError: a file cannot be read or written.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Set the folder, which need not exist."""
        self._folder = folder / digest[:16]

    def get(self, job: Job) -> CachedRun | None:
        """Return a completed training; None where it is not in the cache."""
        path = self._path(job)
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path}: {error}", hint="delete the file") from error
        return CachedRun(
            _read_outcome(record), tuple(Measurement(*row) for row in record["measurements"])
        )

    def put(self, job: Job, outcome: Outcome, measurements: Sequence[Measurement]) -> None:
        """Add a completed training."""
        path = self._path(job)
        record = {
            "config": dict(job.config),
            "seed": job.seed,
            "values": outcome.values,
            "usage": dataclasses.asdict(outcome.usage),
            "summary": outcome.summary,
            "measurements": [dataclasses.astuple(m) for m in measurements],
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(record), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error

    def _path(self, job: Job) -> Path:
        text = f"{job.task.space.key(job.config)}\n{job.seed}"
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _read_outcome(record: dict[str, Any]) -> Outcome:
    """Return the outcome in a file, which version 0.1.0 may have written."""
    values = tuple(record["values"]) if "values" in record else (record["score"],)
    usage = {_RENAMED.get(name, name): value for name, value in record["usage"].items()}
    return Outcome(State.COMPLETE, values, None, Usage(**usage), record["summary"])


_RENAMED = {"gpu_utilisation": "gpu_utilization"}
"""Field of `Usage` in version 0.1.0 -> its name today."""


class CachingExecutor:
    """Takes trials from the cache, and runs all others with another Executor, which it closes."""

    def __init__(self, executor: Executor, trainings: TrainingCache) -> None:
        self._executor = executor
        self._trainings = trainings

    def start(self, job: Job) -> Run:
        """Start the trial, or return the cached one.

        Raises:
            ExecutorError: as the Executor's own `start`.
            StoreError: the cache cannot be read.
        """
        cached = self._trainings.get(job)
        return cached or _RecordedRun(self._executor.start(job), job, self._trainings)

    def close(self) -> None:
        """End whatever still runs, as interrupted."""
        self._executor.close()


class CachedRun:
    """A run whose outcome is known from the cache."""

    def __init__(self, outcome: Outcome, measurements: Sequence[Measurement]) -> None:
        self.outcome: Outcome | None = outcome
        self._unread = measurements

    def poll(self) -> Sequence[Measurement]:
        """Return all measurements at the first call, none later."""
        new, self._unread = self._unread, ()
        return new

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Do nothing: it has ended."""


class _RecordedRun:
    """A run that is added to the cache when it is complete."""

    def __init__(self, run: Run, job: Job, trainings: TrainingCache) -> None:
        self._run = run
        self._job = job
        self._trainings = trainings
        self._measurements: list[Measurement] = []
        self._read = 0
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
        new = self._measurements[self._read :]
        self._read = len(self._measurements)
        return new

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask it to end."""
        self._run.stop(state)
