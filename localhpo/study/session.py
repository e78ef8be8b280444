"""The right to write a study, and the trials as they stand while it is held."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localhpo import __version__
from localhpo.creator import CREATORS
from localhpo.errors import ConfigurationError, InputError, StudyNotFoundError, TaskError
from localhpo.executor import check_command
from localhpo.executor.clock import RealClock
from localhpo.llm import BACKENDS
from localhpo.plugins import Registry
from localhpo.scheduler.pruning import PRUNERS
from localhpo.scheduler.trial_table import TrialTable
from localhpo.space import Space
from localhpo.space.values import show_value
from localhpo.store import Store, StudyRecord, StudyWriter
from localhpo.study.enqueued import EnqueuedConfigs
from localhpo.task import Task, parse_task, to_table
from localhpo.trial import USER, Config, Proposal, Trial


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
        for proposal in self.read_enqueued(self.trial_table.trials):
            self.trial_table.queue(proposal)

    def read_enqueued(self, trials: Sequence[Trial]) -> list[Proposal]:
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
        known = {space.key(trial.config) for trial in trials}
        return [Proposal(c, origin=USER) for key, c in fresh.items() if key not in known]

    def close(self) -> None:
        """Let others write. May be called twice."""
        self.writer.close()


def new_config(space: Space, config: Mapping[str, Any], trials: Sequence[Trial]) -> Config:
    """Return a user's configuration on the grid.

    Raises:
        ConfigurationError: it is not in the space, or it is that of a trial.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError(
            f"a configuration must map names to values; got {show_value(config)}"
        )
    config = space.canonical(config)
    for trial in trials:
        if space.key(trial.config) == space.key(config):
            raise ConfigurationError(
                f"a configuration must be new; {space.text(config)} is trial {trial.number} "
                f"({trial.state})"
            )
    return config


def task_of(record: StudyRecord) -> Task:
    """Return the task that a study was started with."""
    return parse_task(record.settings, folder=Path(), where=f"study {record.name}")


def check_task(task: Task, *, has_creator: bool = False) -> None:
    """Hold a task, which may have been made in Python, to what a task file is held to.

    Args:
        task: the task.
        has_creator: whether a Creator was given, so that the one that the task names is not used.

    Raises:
        TaskError: a field is out of its range, the command does not fit the space, or there is no
            creator, backend or pruner of a name.
        PluginError: a name is that of a plug-in which cannot be imported.
    """
    parse_task(to_table(task), folder=task.folder, where=str(task.source or "task"))
    with naming_file(task):
        if not has_creator:
            _check_name(CREATORS, task.creator.name, "[creator] name")
            _check_name(BACKENDS, task.creator.backend, "[creator] backend")
        _check_name(PRUNERS, task.pruner.name, "[pruner] name")
        if task.command:
            check_command(task.command, task)


def _check_name(registry: Registry[Any], name: str, key: str) -> None:
    try:
        registry.check(name)
    except InputError as error:
        raise TaskError(f"{key}: {error}", hint=error.hint) from error


@contextlib.contextmanager
def naming_file(task: Task) -> Iterator[None]:
    """Let an error about a task say which file it is about.

    Raises:
        TaskError: one was raised within.
    """
    try:
        yield
    except TaskError as error:
        if task.source is None:
            raise
        raise TaskError(f"{task.source} {error}", hint=error.hint) from error


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
