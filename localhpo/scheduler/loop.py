"""The loop that runs a study: it fills free slots, watches what runs, and records everything.

It is asynchronous (a trial that ends makes room at once, whatever the others do), lives in
one thread (only the Creator thinks in another, see `proposer`), and takes time from its
clock, so that a simulated study runs this very loop. Each turn looks at everything once:

    watch the running trials -> heed limits -> read the inbox -> decide how to share memory
    -> ask the Creator -> take its proposals -> start what waits, or let the model's server
    make room for it -> tell the store and the observers

Trials run in this order: those the user enqueued, those that were interrupted, those the
Creator proposed. What is recorded when is said in `ledger`.

How a run ends:

- the budget of trials is used up, or the space: as soon as the last trial has ended;
- time is up: running trials are interrupted, and go on if the budget grows;
- the Creator fails, or the first trials all fail in the same way: running trials, which are
  paid for, end by themselves; then the error is raised;
- `interrupt`, as on Ctrl-C: running trials are interrupted; at a second one, killed;
- an error of the store or the machine: nothing is left running, and what could not be
  recorded runs again next time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from localhpo.creator.protocol import Creator, History
from localhpo.errors import (
    CreatorError,
    NoGoodTrialError,
    StudyInterruptedError,
)
from localhpo.executor.clock import Clock, RealClock
from localhpo.executor.protocol import Executor, Outcome
from localhpo.scheduler import budget, view
from localhpo.scheduler.admission import admit
from localhpo.scheduler.audience import Audience
from localhpo.scheduler.budget import Left, Spent
from localhpo.scheduler.ledger import Ledger, Recorder
from localhpo.scheduler.machine import Machine
from localhpo.scheduler.observer import STOPPED_BY_USER, EventKind, Observer, Snapshot
from localhpo.scheduler.placement import Inventory
from localhpo.scheduler.proposer import Proposer
from localhpo.scheduler.pruning import pruner_for
from localhpo.scheduler.runs import Estimate, Runs
from localhpo.scheduler.settings import Closing, LoopSettings
from localhpo.scheduler.supply import Supply
from localhpo.scheduler.tenancy import Tenancy
from localhpo.scheduler.tenant import Tenant
from localhpo.scheduler.worker import worker
from localhpo.task import Task
from localhpo.trial import COUNTED, Config, Proposal, State, Trial

_ENDED_AS: dict[State, EventKind] = {
    State.COMPLETE: "finished",
    State.PRUNED: "pruned",
    State.FAILED: "failed",
    State.INTERRUPTED: "interrupted",
}


class Loop:
    """One run of a study; made for a single call of `run`.

    Whoever opened the Creator, the Executor and the recorder closes them.

    Args:
        task: What to tune.
        creator: Makes the proposals.
        executor: Runs the trials.
        recorder: Keeps what happens.
        trials: The study's trials so far, of all earlier runs.
        seed: Of the study.
        trial_folder: The folder of a trial, by number.
        inventory: What trials may use; this machine by default.
        clock: The real one by default.
        observers: Told what happens.
        spent: Time that earlier runs used.
        check: Says why a configuration must not run, or None; by default all may.
        inbox: Returns proposals that came from outside since it was last called.
        settings: How to go about it.
        tenant: The model's server, where it shares memory with trials.
        estimate: From a configuration to the memory that it will take.
        machine: The ledger that studies of this machine share; none for a study by itself.

    Raises:
        TaskError: a trial of this task can never run on this machine, or its budget never ends.
    """

    def __init__(
        self,
        *,
        task: Task,
        creator: Creator,
        executor: Executor,
        recorder: Recorder,
        trials: Sequence[Trial],
        seed: int,
        trial_folder: Callable[[int], Path],
        inventory: Inventory | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        spent: Spent | None = None,
        check: Callable[[Config], str | None] | None = None,
        inbox: Callable[[], Sequence[Proposal]] = tuple,
        settings: LoopSettings | None = None,
        tenant: Tenant | None = None,
        estimate: Estimate | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._inventory = inventory = admit(task, inventory)
        self._task = task
        self._clock = clock or RealClock()
        self._spent_before = spent or Spent()
        self._check = check
        self._inbox = inbox
        self._settings = settings or LoopSettings()
        self._prune = pruner_for(task)
        self._tenancy = Tenancy(
            tenant, resources=task.resources, inventory=inventory, clock=self._clock
        )
        self._runs = Runs(
            task=task,
            executor=executor,
            inventory=inventory,
            clock=self._clock,
            trial_folder=trial_folder,
            tenancy=self._tenancy,
            estimate=estimate,
            machine=machine,
        )
        self._ledger = Ledger(trials, recorder=recorder, clock=self._clock, seed=seed)
        self._worker = worker(self._clock, concurrent=self._settings.concurrent_proposals)
        self._supply = Supply(
            task=task,
            ledger=self._ledger,
            runs=self._runs,
            tenancy=self._tenancy,
            proposer=self._proposer(creator, seed),
            worker=self._worker,
            say=self._say,
        )
        self._audience = Audience(recorder, observers, self._clock, idle_s=self._settings.idle_s)

        self._began = self._inbox_due = self._clock.monotonic()
        self._interrupts, self._killed = 0, False
        self._ended: list[Trial] = []  # in this run, in the order of their ends
        self._refused_in_a_row = 0
        self._closing: Closing | None = None

    def _proposer(self, creator: Creator, seed: int) -> Proposer:
        history = History(self._task, (), seed, 0, self._check)
        return Proposer(creator, self._worker, self._clock, history)

    def run(self) -> tuple[Trial, ...]:
        """Run trials until the budget is used up; return all trials of the study.

        Raises:
            StudyInterruptedError: `interrupt` was called.
            NoGoodTrialError: the first trials all failed in the same way.
            CreatorError: no proposal could be made.
            ModelError: the model failed, and the task says to stop then.
        """
        try:
            self._begin()
            while self._goes_on():
                self._turn()
                self._clock.sleep(self._settings.poll_s)
            self._end()
        except BaseException:
            self._abandon()
            raise
        finally:
            self._worker.close()
        if self._closing is not None and self._closing.error is not None:
            raise self._closing.error
        return self._ledger.trials

    def interrupt(self) -> None:
        """Stop the study; may be called by a signal handler. A second call kills what runs."""
        self._interrupts += 1

    def annotate(self, number: int, user_attrs: Mapping[str, Any]) -> Trial:
        """Attach a user's own values to a trial; may be called by an observer."""
        return self._ledger.annotate(number, user_attrs)

    @property
    def spent(self) -> Spent:
        """Time used, over all runs of the study."""
        return Spent(
            wall_s=self._spent_before.wall_s + self._clock.monotonic() - self._began,
            gpu_s=self._spent_before.gpu_s + self._runs.gpu_s,
        )

    # The course of a run.

    def _begin(self) -> None:
        done, total = self._ledger.counted, self._task.budget.trials
        self._say("begun", f"{done} trials are done" + (f" of {total}" if total else ""))
        for warning in self._inventory.warnings:
            self._say("warning", warning)
        for trial in self._ledger.take_up():
            self._say("interrupted", "cut off with an earlier run; it runs again", trial)
        self._share()
        wanted = self._task.resources.parallel
        if self._tenancy.slots < wanted:
            self._say(
                "note",
                f"[resources] parallel = {wanted}, but this machine has room for "
                f"{self._tenancy.slots} at once; let a trial ask for less to run more of them",
            )

    def _turn(self) -> None:
        self._watch()
        self._heed_limits()
        self._read_inbox()
        self._share()
        self._ask_creator()
        self._take_proposals()
        self._start_waiting()
        self._audience.refresh(self._snapshot)

    def _goes_on(self) -> bool:
        if self._killed:
            return False
        if self._runs or self._has_more_to_run():
            return True
        return self._supply.thinking and not self._is_late()

    def _has_more_to_run(self) -> bool:
        if self._closing or self._left.trials == 0:
            return False
        return not self._supply.exhausted or self._supply.in_hand > 0

    def _is_late(self) -> bool:
        late_s = self._clock.monotonic() - self._closing.since if self._closing else 0.0
        return late_s > self._settings.farewell_s

    def _close(self, reason: str, error: Exception | None = None) -> None:
        """Start no further trial in this run; the first reason counts."""
        if self._closing is None:
            self._closing = Closing(reason, self._clock.monotonic(), error)
            self._say("note", f"no further trial is started: {reason}")

    def _end(self) -> None:
        reason = "the space is used up" if self._supply.exhausted else "the budget is used up"
        waiting = len(self._ledger.waiting)
        left_over = f"; {waiting} wait for the next run" if waiting else ""
        self._say("ended", (self._closing.reason if self._closing else reason) + left_over)
        self._audience.refresh(self._snapshot)

    def _abandon(self) -> None:
        """Leave nothing running behind an error, and record what still can be."""
        with contextlib.suppress(Exception):
            self._runs.kill()
            self._watch()
            self._ledger.take_up()
            self._audience.flush()

    # What a turn does.

    def _watch(self) -> None:
        for news in self._runs.poll():
            if news.measurements:
                self._ledger.measure(news.number, news.measurements)
                self._audience.stir()
            if news.outcome is not None:
                self._finish(news.number, news.outcome)
            elif news.measurements:
                self._consider_pruning(news.number)

    def _finish(self, number: int, outcome: Outcome) -> None:
        trial = self._ledger.end(number, outcome)
        self._inbox_due = self._clock.monotonic()
        sentence = view.how_it_ended(trial, self._ledger.trials, self._task)
        self._say(_ENDED_AS[trial.state], sentence, trial)
        if trial.state in COUNTED:
            self._ended.append(trial)
        why = budget.hopeless(self._ended, self._settings.hopeless_after)
        if why is not None:
            self._close(why, NoGoodTrialError(why))

    def _consider_pruning(self, number: int) -> None:
        if self._prune is None:
            return
        trial = self._ledger[number]
        reason = self._prune(trial, self._ledger.trials)
        if reason is not None and self._runs.stop(number, State.PRUNED):
            self._say("pruning", reason, trial)

    def _heed_limits(self) -> None:
        if self._interrupts:
            done = f"the study was interrupted after {self._ledger.counted} trials"
            self._close(STOPPED_BY_USER, StudyInterruptedError(done))
        elif time_is_up := self._left.time_is_up:
            self._close(time_is_up)
        else:
            return
        self._runs.interrupt()
        if self._interrupts > 1:
            self._killed = True
            self._runs.kill()
            self._watch()

    def _read_inbox(self) -> None:
        now = self._clock.monotonic()
        if self._closing is None and now >= self._inbox_due:
            self._inbox_due = now + self._settings.idle_s
            self._supply.enqueue(self._inbox())

    def _share(self) -> None:
        """Decide how trials and the model's server share memory from here on."""
        self._supply.consider_sharing(self._left.trials)
        self._runs.settle_server()
        for news in self._tenancy.take_news():
            self._audience.say(news.kind, news.message, data={**news.data, **self.spent.to_data()})

    def _ask_creator(self) -> None:
        if self._closing is None:
            self._supply.ask(self._left.trials)

    def _take_proposals(self) -> None:
        try:
            self._supply.collect(self._left.trials)
        except Exception as error:  # noqa: BLE001 - raised after the running trials have ended
            self._close(f"the Creator failed ({type(error).__name__}: {error})", error)

    def _start_waiting(self) -> None:
        running = len(self._runs)
        if self._ledger.waiting and self._runs.look():
            self._supply.reckon()
        for trial in self._ledger.waiting:
            if not self._may_start():
                return
            need = self._runs.need(trial.config)
            reason = self._runs.never(need)
            place = self._runs.place(need)
            if place is None and reason is None:
                if (why := self._runs.waits_for_others(need)) is not None:
                    self._say("note", why)
                self._runs.await_turn(need)
                if len(self._runs) == running:  # else what has started may call for a question
                    self._supply.make_room(need, self._left.trials)
                return
            if reason is None and self._check:
                reason = self._check(trial.config)
            if reason is not None and trial.state is State.QUEUED:
                self._refuse(trial, reason)
                continue
            place = None if place is None else self._runs.claim(trial.number, need)
            if place is None:  # it is the turn of another study
                return
            self._refused_in_a_row = 0
            self._runs.start(self._ledger.start(trial), place)
            self._say("started", view.spelled(self._task, trial.config), trial)

    def _may_start(self) -> bool:
        left = self._left.trials
        return self._closing is None and (left is None or left > len(self._runs))

    def _refuse(self, trial: Trial, reason: str) -> None:
        self._say("infeasible", reason, self._ledger.refuse(trial, reason))
        self._refused_in_a_row += 1
        if self._refused_in_a_row == self._settings.refusals:
            why = f"{self._refused_in_a_row} infeasible proposals in a row; the last: {reason}"
            self._close(why, CreatorError(why, hint="narrow the space to what fits this machine"))

    # What others are told.

    @property
    def _left(self) -> Left:
        return budget.left(self._task.budget, self._ledger.counted, self.spent)

    def _say(self, kind: EventKind, message: str, trial: Trial | None = None) -> None:
        # Each event carries the time used, which a later run of the study goes on from.
        number = None if trial is None else trial.number
        self._audience.say(kind, message, number, self.spent.to_data())

    def _snapshot(self) -> Snapshot:
        return view.snapshot(
            self._task,
            self._ledger.trials,
            elapsed_s=self._runs.elapsed_s,
            slots=self._tenancy.slots,
            spent=self.spent,
            left=self._left,
            proposing=self._supply.thinking,
            closing=self._closing.reason if self._closing else "",
            held_up=self._runs.held_up,
        )
