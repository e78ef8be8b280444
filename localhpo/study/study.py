"""A study: the trials of one task under one set of settings.

It wires Creator, Scheduler, Executor and Store together. Whatever a study knows is in its
store: a `Study` may be thrown away at any time and opened again.

    with Study.open(load_task("task.toml")) as study:
        study.run()
        print(study.best)
        trial = study.ask()  # or by hand, as often as you like
        study.tell(trial, evaluate(**trial.config))

One process at a time writes a study (asks, tells, runs); any number may read it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from localhpo.creator import Creator, History
from localhpo.errors import InputError, NoGoodTrialError, StudyLockedError, StudyNotFoundError
from localhpo.executor import Executor
from localhpo.scheduler import budget
from localhpo.scheduler.loop import Loop
from localhpo.scheduler.observer import Observer
from localhpo.store import Event, Store, default_home, study_name
from localhpo.study.callbacks import Callbacks
from localhpo.study.hardware import Hardware
from localhpo.study.identity import check_same
from localhpo.study.inbox import Inbox
from localhpo.study.notes import Notes
from localhpo.study.place import check_ready, find_place, find_serving
from localhpo.study.proposing import Proposing
from localhpo.study.serving import Serving
from localhpo.study.session import Session, check_task, naming_file, new_config, task_of
from localhpo.study.signals import on_signal
from localhpo.study.told import number_of, outcome
from localhpo.task import Task
from localhpo.trial import ADDED, Measurement, Proposal, State, Trial, best_trial, counted

Callback = Callable[["Study", Trial], None]
"""Called with the study and each trial that has ended."""


class Study:
    """Runs, resumes and reads one study. Made by `open` or `find`."""

    def __init__(
        self,
        task: Task,
        key: str,
        store: Store,
        *,
        creator: Creator | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.task = task
        self.key = key
        """`<task>/<study>`, its name in the store."""
        self._store = store
        self._proposing = Proposing(store, key, task, creator, self._note)
        self._executor = executor
        self._inbox = Inbox(store.study_folder(key) / "inbox")
        self._session: Session | None = None
        self._loop: Loop | None = None
        self._live: tuple[Trial, ...] = ()  # as the running loop shows them

    @classmethod
    def open(
        cls,
        task: Task,
        name: str = "main",
        *,
        home: Path | str | None = None,
        creator: Creator | None = None,
        executor: Executor | None = None,
    ) -> Self:
        """Return the study of a task: a new one, or the one to go on with.

        Nothing is written yet.

        Args:
            task: what to tune.
            name: of the study, among those of the task.
            home: folder of the store; `$LOCALHPO_HOME`, else `./.localhpo`.
            creator: proposes, in place of the one that the task names. The caller closes it.
            executor: runs the trials, in place of processes. The caller closes it.

        Raises:
            TaskError: a field is out of its range, or the command does not fit the space.
            StudyChangedError: the study was started under other settings.
            StoreError: the store cannot be read.
        """
        check_task(task)
        store = Store(Path(home or default_home()))
        key = study_name(task.name, name)
        with contextlib.suppress(StudyNotFoundError):
            check_same(key, task_of(store.study(key)), task)
        return cls(task, key, store, creator=creator, executor=executor)

    @classmethod
    def find(cls, name: str | None = None, *, home: Path | str | None = None) -> Self:
        """Return a study of the store.

        Args:
            name: `<task>/<study>`, or `<task>` for its study `main`. None: the only one.
            home: folder of the store; `$LOCALHPO_HOME`, else `./.localhpo`.

        Raises:
            StudyNotFoundError: there is none, or no name was given and there are several.
        """
        store = Store(Path(home or default_home()))
        if name is None:
            names = [record.name for record in store.studies()]
            if len(names) != 1:
                have = f"has {len(names)}: {', '.join(names)}" if names else "has none"
                raise StudyNotFoundError(f"which study? the store {have}")
            (name,) = names
        key = name if "/" in name else study_name(name)
        return cls(task_of(store.study(key)), key, store)

    @property
    def folder(self) -> Path:
        """Where its trials and its report lie."""
        return self._store.study_folder(self.key)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number, as they stand."""
        if self._loop is not None:
            return self._live
        if self._session is not None:
            return self._session.ledger.trials
        try:
            return tuple(self._store.trials(self.key))
        except StudyNotFoundError:
            return ()

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best score."""
        return best_trial(self.trials, self.task.direction)

    @property
    def events(self) -> Sequence[Event]:
        """What happened, in order."""
        try:
            return self._store.events(self.key)
        except StudyNotFoundError:
            return ()

    def run(
        self, *, observers: Sequence[Observer] = (), callbacks: Sequence[Callback] = ()
    ) -> None:
        """Run trials until the budget of the study is used up.

        SIGINT, SIGTERM and SIGHUP end it in order, where this is the main thread.

        Raises:
            StudyInterruptedError: it was interrupted; run it again to go on.
            NoGoodTrialError: there is not one good trial.
            StudyLockedError: another process runs it.
            TaskError, DataError: a trial can never run on this machine.
            ExecutorError, MissingExtraError: the cluster that the task names cannot be used.
            CreatorError, ModelError: no proposal could be made.
        """
        self.close()
        with naming_file(self.task):  # what can be refused is refused before anything is written
            executor, inventory = find_place(self.task, self._executor)
        hardware = Hardware(self.task, self.key, self._store, inventory)
        try:
            if self._is_used_up():  # no model is loaded for nothing
                return self._check_good(self.trials)
            self._store.check_free(self.key)
            if self._executor is None:
                check_ready(self.task)
            notes = Notes(observers)
            pid = self._proposing.server_pid
            serving = find_serving(self.task, self.key, inventory, pid, notes.say)
            # A server ends before what it holds is given to others.
            with contextlib.closing(serving), contextlib.closing(self):
                self._proposing.creator(serving.host)
                session = self._begin()
                notes.record_by(session.writer)
                told = (hardware.accountant(session.writer, self._proposing.took_s), *observers)
                self._loop = self._make_loop(session, executor, hardware, serving, told, callbacks)
                with on_signal(self._loop.interrupt):
                    trials = self._loop.run()
        finally:
            self._loop = None
            hardware.close()
            if self._executor is None:
                executor.close()
            self.close()
        return self._check_good(trials)

    def interrupt(self) -> None:
        """End a `run` in order; a second call kills what still runs. Safe in a callback."""
        if self._loop is not None:
            self._loop.interrupt()

    def ask(self) -> Trial:
        """Return a trial to be run by hand: an enqueued one, or a new proposal.

        The first one waits for its model to have room on this machine, and to be loaded.

        Raises:
            SpaceExhaustedError: nothing new is left.
            StudyLockedError: another process writes this study.
        """
        session = self._begin()
        session.take_up()
        ledger = session.ledger
        if not ledger.waiting:
            history = History(self.task, ledger.trials, self.task.seed, ledger.next_number)
            for proposal in self._proposing.creator().propose(history, 1):
                ledger.queue(proposal)
        return ledger.start(ledger.waiting[0])

    def tell(
        self,
        trial: Trial | int,
        score: float | None = None,
        *,
        failure: str | None = None,
        pruned: bool = False,
        measurements: Sequence[Measurement] = (),
    ) -> Trial:
        """Say how a trial that was asked for ended; return it as it is recorded.

        Args:
            trial: the trial, or its number.
            score: its value of the metric; one that is not finite makes it a failure.
            failure: why it failed, in one sentence.
            pruned: it was stopped early; `score` is what it had reached.
            measurements: what it reported on the way.

        Raises:
            InputError: neither score nor failure was given, or the trial does not run.
        """
        with self._writing() as session:
            running = {t.number: t for t in session.ledger.trials if t.state is State.RUNNING}
            number = number_of(trial)
            if number not in running:
                raise InputError(
                    f"trial {number} must be running to be told of",
                    hint="`Study.ask` starts a trial; one is told of once",
                )
            wall_s = time.time() - (running[number].started_at or 0.0)
            told = outcome(self.task.metric, score, failure, pruned, wall_s=max(0.0, wall_s))
            if measurements:
                session.ledger.measure(number, measurements)
            ended = session.ledger.end(number, told)
            session.writer.flush()
            return ended

    def enqueue(self, config: Mapping[str, Any]) -> None:
        """Let this configuration be run next, even while another process runs the study.

        Raises:
            ConfigurationError: it is not in the space, or was tried already.
        """
        config = new_config(self.task.space, config, self.trials)
        if self._loop is not None:  # a callback's wish: the loop keeps the ledger
            self._inbox.put(config)
            return
        try:
            with self._writing() as session:
                session.ledger.queue(Proposal(config, origin="user"))
        except StudyLockedError:
            self._inbox.put(config)

    def add_trial(
        self,
        config: Mapping[str, Any],
        score: float | None = None,
        *,
        failure: str | None = None,
        pruned: bool = False,
        measurements: Sequence[Measurement] = (),
        user_attrs: Mapping[str, Any] | None = None,
    ) -> Trial:
        """Record a trial that was run elsewhere; it does not count against the budget.

        Arguments as for `tell`.

        Raises:
            ConfigurationError: the configuration is not in the space, or is known already.
            InputError: neither score nor failure was given.
            StudyLockedError: another process writes this study.
        """
        told = outcome(self.task.metric, score, failure, pruned)
        config = new_config(self.task.space, config, self.trials)
        with self._writing() as session:
            ledger = session.ledger
            trial = ledger.start(ledger.queue(Proposal(config, origin=ADDED)))
            if measurements:
                ledger.measure(trial.number, measurements)
            trial = ledger.end(trial.number, told)
        return self.set_user_attrs(trial, user_attrs) if user_attrs else trial

    def set_user_attrs(self, trial: Trial | int, attrs: Mapping[str, Any]) -> Trial:
        """Attach values of your own (JSON) to a trial that has ended; return it with them.

        Raises:
            InputError: the trial has not ended.
        """
        with self._writing() as session:
            number = number_of(trial)
            known = {t.number: t for t in self.trials}
            if number not in known or known[number].finished_at is None:
                raise InputError(f"trial {number} must have ended before attributes are set")
            merged = {**known[number].user_attrs, **attrs}
            return (self._loop or session.ledger).annotate(number, merged)

    def close(self) -> None:
        """Let others write, and free the model. May be called twice; the study stays usable."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self._proposing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Session]:
        """Hold the right to write for one change, or go on holding it."""
        held = self._session is not None
        try:
            yield self._begin()
        finally:
            if not held:
                self.close()

    def _begin(self) -> Session:
        """Take the right to write, or go on holding it.

        Raises:
            StudyLockedError: another process has it.
        """
        if self._session is None:
            self._session = Session(self._store, self.key, self.task, self._inbox)
        return self._session

    def _is_used_up(self) -> bool:
        spent = budget.Spent.from_data([event.data for event in self.events])
        return budget.left(self.task.budget, counted(self.trials), spent).used_up

    def _check_good(self, trials: Sequence[Trial]) -> None:
        if counted(trials) and best_trial(trials, self.task.direction) is None:
            raise NoGoodTrialError(f"none of the {counted(trials)} trials of {self.key} was good")

    def _make_loop(
        self,
        session: Session,
        executor: Executor,
        hardware: Hardware,
        serving: Serving,
        observers: Sequence[Observer],
        callbacks: Sequence[Callback],
    ) -> Loop:
        self._live = session.ledger.trials
        creator = self._proposing.creator()
        heard = Callbacks(self._see, [partial(one, self) for one in callbacks], self._live)
        return Loop(
            task=self.task,
            creator=creator,
            executor=hardware.watched(executor),
            recorder=session.writer,
            trials=self._live,
            seed=self.task.seed,
            trial_folder=lambda number: self._store.trial_folder(self.key, number),
            tenant=serving.tenant(creator),
            inventory=serving.inventory,  # as it is found to be then
            check=lambda config: hardware.refusal(config, self._live),
            estimate=lambda config: hardware.estimate_mb(config, self._live),
            observers=[heard, *observers],
            spent=budget.Spent.from_data([event.data for event in self.events]),
            inbox=lambda: session.letters(self._live),
            machine=serving.machine,
        )

    def _see(self, trials: tuple[Trial, ...]) -> None:
        self._live = trials

    def _note(self, message: str) -> None:
        """Record what is waited for while a trial is asked for."""
        writer = self._begin().writer
        writer.event("note", message)
        writer.flush()
