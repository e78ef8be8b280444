"""A study: the trials of one task under one set of settings.

It wires Creator, Scheduler, Executor and Store together. Whatever a study knows is in its
store: a `Study` may be thrown away at any time and opened again.

    with Study.open(load_task("task.toml")) as study:
        study.run()
        print(study.best_trial)
        trial = study.ask()  # or by hand, as often as you like
        study.tell(trial, evaluate(**trial.config))

One process at a time writes a study (asks, tells, runs); any number may read it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from localhpo.creator import Creator, History, describe_ignored_goals
from localhpo.errors import InputError, NoGoodTrialError, StudyLockedError, StudyNotFoundError
from localhpo.executor import Executor
from localhpo.objective import best_trials
from localhpo.scheduler import budget
from localhpo.scheduler.events import Observer
from localhpo.scheduler.loop import Loop, StoredStudy
from localhpo.scheduler.proposal_queue import propose_valid
from localhpo.scheduler.running_trials import ExecutionTarget
from localhpo.store import Event, Store, default_home, study_name
from localhpo.study.checks import check_ready, check_same, check_task, naming_file, new_config
from localhpo.study.execution_target import Hardware, find_execution_target
from localhpo.study.external_trials import (
    ExternalTrial,
    Values,
    make_outcome,
    number_of,
    record_trial,
)
from localhpo.study.lazy_creator import LazyCreator
from localhpo.study.model_placement import ModelPlacement, make_model_placement
from localhpo.study.observers import Callbacks, PendingEvents
from localhpo.study.session import EnqueuedConfigs, Session, task_of
from localhpo.task import Task
from localhpo.trial import COUNTED, USER, Measurement, Proposal, State, Trial, count_budgeted

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
        self._creator = LazyCreator(store, key, task, creator, self._note)
        self._executor = executor
        self._enqueued = EnqueuedConfigs(store.study_folder(key))
        self._session: Session | None = None
        self._loop: Loop | None = None

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
            TaskError: a field is out of its range, the command does not fit the space, or there is
                no creator, backend or pruner of a name.
            StudyChangedError: the study was started under other settings.
            StoreError: the store cannot be read.
        """
        check_task(task, has_creator=creator is not None)
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
        if self._session is not None:
            return self._session.trial_table.trials
        try:
            return tuple(self._store.trials(self.key))
        except StudyNotFoundError:
            return ()

    @property
    def best_trials(self) -> tuple[Trial, ...]:
        """The Pareto set of the feasible complete trials, by number; with one objective one trial.

        Where no trial is feasible, the least infeasible ones: `Trial.feasible` tells.
        """
        return best_trials(self.trials, self.task.objectives)

    @property
    def best_trial(self) -> Trial | None:
        """The best trial by the one objective; None before any is complete.

        Raises:
            InputError: there are several objectives; they have `best_trials`.
        """
        if len(self.task.objectives) > 1:
            raise InputError(
                f"{self.key} has {len(self.task.objectives)} objectives, and so no single best "
                f"trial",
                hint="read `best_trials`",
            )
        return next(iter(self.best_trials), None)

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
            executor, inventory = find_execution_target(self.task, self._executor)
        hardware = Hardware(self.task, self.key, self._store, inventory)
        try:
            if self._is_used_up():  # no model is loaded for nothing
                return self._check_good(self.trials)
            with naming_file(self.task):
                hardware.check_measurable()
            self._store.check_free(self.key)
            if self._executor is None:
                check_ready(self.task)
            pending = PendingEvents(observers)
            pid = self._creator.server_pid
            model_placement = make_model_placement(
                self.task, self.key, inventory, pid, pending.publish
            )
            # A server ends before what it holds is given to others.
            with contextlib.closing(model_placement), contextlib.closing(self):
                creator = self._creator.creator(model_placement.placer)
                session = self._begin()
                pending.attach_writer(session.writer)
                if note := describe_ignored_goals(self.task, creator.name):
                    pending.publish("note", note)
                told = (
                    hardware.usage_accounting(session.writer, self._creator.loading_s),
                    *observers,
                )
                self._loop = self._make_loop(
                    session, executor, hardware, model_placement, told, callbacks
                )
                with _on_signal(self._loop.interrupt):
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

        The first call waits until there is memory for the model, and loads it.

        Raises:
            SpaceExhaustedError: nothing new is left.
            CreatorError: the Creator proposed what is not new or not in the space.
            StudyLockedError: another process writes this study.
        """
        session = self._begin()
        session.recover()
        trial_table = session.trial_table
        if not trial_table.waiting:
            history = History(
                self.task, trial_table.trials, self.task.seed, trial_table.next_number
            )
            for proposal in propose_valid(self._creator.creator(), history, 1):
                trial_table.queue(proposal)
        return trial_table.start(trial_table.waiting[0])

    def tell(
        self,
        trial: Trial | int,
        values: Values | None = None,
        *,
        failure: str | None = None,
        pruned: bool = False,
        measurements: Sequence[Measurement] = (),
    ) -> Trial:
        """Record how a trial that was asked for ended; return it as it is recorded.

        Args:
            trial: the trial, or its number.
            values: the value of the one objective, a sequence of one for each, or a mapping by
                name, which may hold the metrics of constraints too. A value that is not finite
                makes it a failure.
            failure: why it failed, in one sentence.
            pruned: whether it was stopped early; `values` is what it had reached.
            measurements: what it reported on the way.

        Raises:
            InputError: neither values nor failure was given, a value is missing or unknown, or
                the trial does not run.
        """
        with self._writing() as session:
            running = {t.number: t for t in session.trial_table.trials if t.state is State.RUNNING}
            number = number_of(trial)
            if number not in running:
                raise InputError(
                    f"trial {number} must be running, and is not",
                    hint="`Study.ask` starts a trial; `tell` ends it once",
                )
            wall_s = time.time() - (running[number].started_at or 0.0)
            outcome = make_outcome(
                self.task, values, failure, pruned,
                measurements=measurements, wall_s=max(0.0, wall_s),
            )  # fmt: skip
            if measurements:
                session.trial_table.add_measurements(number, measurements)
            ended = session.trial_table.end(number, outcome)
            session.writer.flush()
            return ended

    def enqueue(self, config: Mapping[str, Any], *, create: bool = True) -> None:
        """Have this configuration run next, even while another process runs the study.

        Args:
            config: one of the space.
            create: create the study where there is none, which fixes its settings. False: leave
                that to its first run, which reads the configuration.

        Raises:
            ConfigurationError: it is not in the space, or was tried already.
        """
        config = new_config(self.task.space, config, self.trials)
        if self._loop is not None:  # called by a callback: the loop writes trials
            self._enqueued.put(config)
            return
        try:
            if not create:
                self._store.study(self.key)
            with self._writing() as session:
                session.trial_table.queue(Proposal(config, origin=USER))
        except (StudyLockedError, StudyNotFoundError):
            self._enqueued.put(config)

    def add_trial(
        self,
        config: Mapping[str, Any],
        values: Values | None = None,
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
            InputError: neither values nor failure was given, or a value is missing or unknown.
            StudyLockedError: another process writes this study.
        """
        outcome = make_outcome(self.task, values, failure, pruned, measurements=measurements)
        config = new_config(self.task.space, config, self.trials)
        with self._writing() as session:
            external = ExternalTrial(config, outcome, tuple(measurements))
            trial = record_trial(session.trial_table, external)
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
            return session.trial_table.set_user_attrs(number, merged)

    def close(self) -> None:
        """Let others write, and free the model. May be called twice; the study stays usable."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self._creator.close()

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
            self._session = Session(self._store, self.key, self.task)
        return self._session

    def _is_used_up(self) -> bool:
        spent = budget.SpentTime.from_data([event.data for event in self.events])
        return budget.remaining_budget(self.task.budget, count_budgeted(self.trials), spent).used_up

    def _check_good(self, trials: Sequence[Trial]) -> None:
        if count_budgeted(trials) and not best_trials(trials, self.task.objectives):
            numbers = Counter(trial.state for trial in trials if trial.state in COUNTED)
            found = ", ".join(f"{number} {state}" for state, number in sorted(numbers.items()))
            shows = f"`localhpo trials {self.key} --failed` shows each failure and its cause"
            raise NoGoodTrialError(
                f"{self.key} has no complete trial: {found}",
                hint=shows if State.FAILED in numbers else "",
            )

    def _make_loop(
        self,
        session: Session,
        executor: Executor,
        hardware: Hardware,
        model_placement: ModelPlacement,
        observers: Sequence[Observer],
        callbacks: Sequence[Callback],
    ) -> Loop:
        table, creator = session.trial_table, self._creator.creator()
        target = ExecutionTarget(
            executor=hardware.metered(executor),
            inventory=model_placement.inventory,
            trial_folder=lambda number: self._store.trial_folder(self.key, number),
            loaded_model=model_placement.find_loaded_model(creator),
            broker=model_placement.broker,
            estimate_mb=lambda config: hardware.estimate_mb(config, table.trials),
            check_config=lambda config: hardware.explain_refusal(config, table.trials),
        )
        study = StoredStudy(
            table,
            spent=budget.SpentTime.from_data([event.data for event in self.events]),
            read_enqueued=session.read_enqueued,
        )
        observers = [Callbacks([partial(one, self) for one in callbacks], table.trials), *observers]
        return Loop(self.task, creator, target, study, observers=observers)

    def _note(self, message: str) -> None:
        """Record what is waited for while a trial is asked for."""
        writer = self._begin().writer
        writer.write_event("note", message)
        writer.flush()


@contextlib.contextmanager
def _on_signal(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` on SIGINT, SIGTERM and SIGHUP; only in the main thread, as Python requires.

    A SIGHUP that is ignored stays ignored, for `nohup`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asking = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asking.append(signal.SIGHUP)
    before = {one: signal.signal(one, lambda *_: interrupt()) for one in asking}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
