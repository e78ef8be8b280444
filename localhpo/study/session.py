"""The right to write a study, its trials while it is held, and what others enqueue meanwhile.

An enqueued configuration is a file, written under a hidden name and then renamed, so that the
running study sees it complete or not at all. It is deleted at the next reading after the one that
returned it, when its trial is in the record: after a crash between the two it is returned again,
and the study drops it as a known configuration.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from localhpo import __version__
from localhpo.errors import ConfigurationError, InputError, StudyNotFoundError
from localhpo.executor.clock import RealClock
from localhpo.scheduler.trial_table import TrialTable
from localhpo.store import Store, StudyRecord, StudyWriter
from localhpo.task import Task, parse_task, to_table
from localhpo.trial import USER, Config, Proposal


class EnqueuedConfigs:
    """The enqueued configurations of one study, in the order in which they came."""

    def __init__(self, study_folder: Path) -> None:
        self._folder = study_folder / "enqueued"
        self._searched = (study_folder / "inbox", self._folder)  # the first is that of 0.1.0
        self._read: list[Path] = []

    def put(self, config: Config) -> None:
        """Enqueue a configuration."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        hidden = self._folder / f".{name}"
        with hidden.open("w", encoding="utf-8") as file:
            json.dump(dict(config), file)
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(self._folder / name)

    def read(self) -> Sequence[Config]:
        """Return the configurations since the last call, and delete the files of that call."""
        for path in self._read:
            path.unlink(missing_ok=True)
        self._read = [path for folder in self._searched for path in sorted(folder.glob("*.json"))]
        return [json.loads(path.read_text(encoding="utf-8")) for path in self._read]


class Session:
    """Takes the study on construction and frees it at `close`.

    It changes nothing by itself: a loop recovers what an earlier run left, and for trials that
    are run by hand `recover` does.
    """

    def __init__(self, store: Store, key: str, task: Task) -> None:
        """Take the right to write the study, which is created where there is none.

        Raises:
            StudyLockedError: another process has it.
            StoreError: the store cannot be written.
        """
        self.writer = _writer(store, key, task)
        self._task = task
        self._enqueued = EnqueuedConfigs(store.study_folder(key))
        self._recovered = False
        try:
            self.trial_table = TrialTable(
                store.trials(key), recorder=self.writer, clock=RealClock(), seed=task.seed
            )
        except BaseException:
            self.close()
            raise

    def recover(self) -> None:
        """Queue what was enqueued; the first time, interrupt what was left running."""
        if not self._recovered:
            self.trial_table.recover()
            self._recovered = True
        for proposal in self.read_enqueued():
            self.trial_table.queue(proposal)

    def read_enqueued(self) -> list[Proposal]:
        """Return what others enqueued; what is known by now is dropped.

        So is what is not in the space, which a file put there by hand may hold: it is noted,
        and does no harm to the study.
        """
        space = self._task.space
        fresh: dict[str, Config] = {}
        for config in self._enqueued.read():
            try:
                fresh[space.key(config)] = space.canonical(config)
            except ConfigurationError as error:
                self.writer.write_event(
                    "warning", f"an enqueued configuration was dropped: {error}"
                )
        known = {space.key(trial.config) for trial in self.trial_table.trials}
        return [Proposal(c, origin=USER) for key, c in fresh.items() if key not in known]

    def close(self) -> None:
        """Let others write. May be called twice."""
        self.writer.close()


def task_of(record: StudyRecord) -> Task:
    """Return the task that a study was started with."""
    return parse_task(record.settings, folder=Path(), where=f"study {record.name}")


def _writer(store: Store, key: str, task: Task) -> StudyWriter:
    """Return the writer of a study, which is created first where there is none."""
    try:
        return store.writer(key)
    except StudyNotFoundError:
        record = StudyRecord(
            name=key,
            task_name=task.name,
            settings=to_table(task),
            created_at=time.time(),
            version=__version__,
        )
        with contextlib.suppress(InputError):  # another process may have been quicker
            store.create_study(record)
        return store.writer(key)
