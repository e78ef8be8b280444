"""The loop that runs a study: it fills free slots, polls running trials, and records everything.

It is asynchronous: a trial that ends frees its slot at once, whatever the others do. It runs in
one thread (only the Creator has another, see `Proposer`), and takes time from its clock, so that a
simulated study runs this very loop. Each turn goes once through everything:

    poll the running trials -> check limits -> read enqueued trials -> decide how to share memory
    -> ask the Creator -> collect its proposals -> start waiting trials, or offload the model's
    server to free memory for one -> update the store and the observers

Trials run in this order: those the user enqueued, those that were interrupted, those the
Creator proposed. `trial_table` says what is recorded when.

A run ends in one of these ways:

- the budget of trials or the space is used up: as soon as the last trial has ended;
- time is up: running trials are interrupted, and go on if the budget grows;
- the Creator fails, or the first trials all fail in the same way: running trials go on to their
  end, since they are paid for; then the error is raised;
- `interrupt`, as on Ctrl-C: running trials are interrupted; at a second one, killed;
- an error of the store or the machine: nothing is left running, and what could not be recorded
  runs again next time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from localhpo.creator.protocol import Creator, History
from localhpo.errors import CreatorError, NoGoodTrialError, PluginError, StudyInterruptedError
from localhpo.executor.protocol import Outcome
from localhpo.resources.placement import MemoryNeed
from localhpo.scheduler import budget
from localhpo.scheduler.budget import RemainingBudget, SpentTime
from localhpo.scheduler.events import (
    STOPPED_BY_USER,
    EventBus,
    EventKind,
    Observer,
    Snapshot,
    describe_end,
    format_config,
    make_snapshot,
)
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.scheduler.proposal_queue import ProposalQueue, Proposer
from localhpo.scheduler.pruning import Pruner, make_pruner
from localhpo.scheduler.running_trials import ExecutionTarget, RunningTrials
from localhpo.scheduler.trial_placement import TrialPlacement
from localhpo.scheduler.trial_table import TrialTable
from localhpo.task import Task
from localhpo.trial import COUNTED, Proposal, State, Trial

_END_EVENTS: dict[State, EventKind] = {
    State.COMPLETE: "finished",
    State.PRUNED: "pruned",
    State.FAILED: "failed",
    State.INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How often the loop does what, and when it gives up."""

    poll_s: float = 0.05
    """Between two turns."""
    idle_s: float = 1.0
    """Between two checks for enqueued trials, flushes and snapshots while nothing happens."""
    shutdown_timeout_s: float = 10.0
    """How long a run that is over waits for a proposal that is still being made; after that it
    leaves the Creator alone in its thread."""
    concurrent_proposals: bool = True
    """Whether the Creator has a thread of its own; False for simulations."""
    max_refusals: int = 20
    """Number of infeasible proposals in a row that ends the run with an error."""
    max_initial_failures: int = 3
    """Number of first trials that, failing all in the same way, end the run; 0 for never."""


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as it is stored: where a run goes on, and what is added from outside meanwhile."""

    table: TrialTable
    """The trials of all earlier runs; each change is recorded."""
    spent: SpentTime = field(default_factory=SpentTime)
    """Time that earlier runs used."""
    read_enqueued: Callable[[], Sequence[Proposal]] = tuple
    """Returns proposals that were enqueued since the last call."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Why and since when no further trial is started."""

    reason: str
    since: float
    """On the monotonic clock."""
    error: Exception | None
    """Raised once the running trials have ended."""


class Loop:
    """One run of a study; `run` is called once.

    The Creator, the Executor and the recorder are closed by whoever opened them.

    Args:
        task: The task, which `admission.admit_task` has accepted.
        creator: Makes the proposals.
        target: Where the trials run.
        study: The study as it is stored.
        observers: Receive events and snapshots.
        settings: How often the loop does what, and when it gives up.
    """

    def __init__(
        self,
        task: Task,
        creator: Creator,
        target: ExecutionTarget,
        study: StoredStudy,
        *,
        observers: Sequence[Observer] = (),
        settings: LoopSettings | None = None,
    ) -> None:
        self._task = task
        self._target = target
        self._study = study
        self._table = study.table
        self._settings = settings = settings or LoopSettings()
        self._clock = clock = target.clock
        self._prune: Pruner | None = make_pruner(task)
        self._events = EventBus(
            study.table.recorder,
            observers,
            clock,
            idle_s=settings.idle_s,
            spent=lambda: self.spent,
        )
        self._residency = ModelResidency(
            target.loaded_model, resources=task.resources, inventory=target.inventory, clock=clock
        )
        self._running = RunningTrials(task, target)
        self._placement = TrialPlacement(task, target, self._running, self._residency)
        self._proposer = Proposer(
            creator,
            History(task, (), study.table.seed, 0, target.check_config),
            clock,
            concurrent=settings.concurrent_proposals,
        )
        self._queue = ProposalQueue(
            task=task,
            table=study.table,
            running=self._running,
            placement=self._placement,
            residency=self._residency,
            proposer=self._proposer,
            events=self._events,
        )
        self._began = self._enqueued_due = clock.monotonic()
        self._interrupts, self._refused_in_a_row, self._killed = 0, 0, False
        self._ended: list[Trial] = []  # in this run, in the order of their ends
        self._stop: StopRequest | None = None

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
            self._proposer.close()
        if self._stop is not None and self._stop.error is not None:
            raise self._stop.error
        return self._table.trials

    def interrupt(self) -> None:
        """Stop the study; safe in a signal handler. A second call kills what still runs."""
        self._interrupts += 1

    @property
    def spent(self) -> SpentTime:
        """Time used, over all runs of the study."""
        return SpentTime(
            wall_s=self._study.spent.wall_s + self._clock.monotonic() - self._began,
            gpu_s=self._study.spent.gpu_s + self._running.gpu_s,
        )

    # Start, turns, end.

    def _begin(self) -> None:
        done, total = self._table.counted, self._task.budget.trials
        self._events.publish(
            "begun", f"{done} of {total} trials are done" if total else f"{done} trials are done"
        )
        for warning in self._target.inventory.warnings:
            self._events.publish("warning", warning)
        for trial in self._table.recover():
            self._events.publish(
                "interrupted", "it was running when an earlier run ended; it runs again", trial
            )
        self._share_memory()
        wanted = self._task.resources.parallel
        if self._residency.slots < wanted:
            self._events.publish(
                "note",
                f"[resources] parallel = {wanted}, but this machine has room for "
                f"{self._residency.slots} at once; let a trial ask for less to run more of them",
            )

    def _turn(self) -> None:
        self._poll_trials()
        self._check_limits()
        self._enqueue()
        self._share_memory()
        self._ask_creator()
        self._collect_proposals()
        self._start_waiting()
        self._events.update(self._make_snapshot)

    def _goes_on(self) -> bool:
        if self._killed:
            return False
        if self._running or self._has_more_to_run():
            return True
        return self._queue.proposing and not self._is_late()

    def _has_more_to_run(self) -> bool:
        if self._stop or self._left.trials == 0:
            return False
        return not self._queue.exhausted or self._queue.size > 0

    def _is_late(self) -> bool:
        late_s = self._clock.monotonic() - self._stop.since if self._stop else 0.0
        return late_s > self._settings.shutdown_timeout_s

    def _request_stop(self, reason: str, error: Exception | None = None) -> None:
        """Start no further trial in this run; the first reason counts."""
        if self._stop is None:
            self._stop = StopRequest(reason, self._clock.monotonic(), error)
            self._events.publish("note", f"no further trial is started: {reason}")

    def _end(self) -> None:
        reason = "the space is used up" if self._queue.exhausted else "the budget is used up"
        waiting = len(self._table.waiting)
        waits = "1 trial waits" if waiting == 1 else f"{waiting} trials wait"
        left_over = f"; {waits} for the next run" if waiting else ""
        self._events.publish("ended", (self._stop.reason if self._stop else reason) + left_over)
        self._events.update(self._make_snapshot)

    def _abandon(self) -> None:
        """After an error, leave nothing running, and record what still can be."""
        with contextlib.suppress(Exception):
            self._running.kill_all()
            self._poll_trials()
            self._table.recover()
            self._events.flush()

    # The steps of a turn.

    def _poll_trials(self) -> None:
        for progress in self._running.poll():
            if progress.measurements:
                self._table.add_measurements(progress.number, progress.measurements)
                self._events.mark_dirty()
            if progress.outcome is not None:
                self._finish(progress.number, progress.outcome)
            elif progress.measurements:
                self._consider_pruning(progress.number)

    def _finish(self, number: int, outcome: Outcome) -> None:
        self._placement.release(number)
        trial = self._table.end(number, outcome)
        self._enqueued_due = self._clock.monotonic()
        sentence = describe_end(trial, self._table.trials, self._task)
        self._events.publish(_END_EVENTS[trial.state], sentence, trial)
        if trial.state in COUNTED:
            self._ended.append(trial)
        why = budget.repeated_failure(self._ended, self._settings.max_initial_failures)
        if why is not None:
            self._request_stop(why, NoGoodTrialError(why))

    def _consider_pruning(self, number: int) -> None:
        if self._prune is None:
            return
        trial = self._table[number]
        try:
            reason = self._prune(trial, self._table.trials)
        except PluginError as error:
            self._prune = None
            self._events.publish("warning", f"no trial is pruned from now on: {error}")
            return
        if reason is not None and self._running.stop(number, State.PRUNED):
            self._events.publish("pruning", reason, trial)

    def _check_limits(self) -> None:
        if self._interrupts:
            done = "1 trial" if self._table.counted == 1 else f"{self._table.counted} trials"
            error = StudyInterruptedError(f"the study was interrupted after {done}")
            self._request_stop(STOPPED_BY_USER, error)
        elif time_is_up := self._left.time_is_up:
            self._request_stop(time_is_up)
        else:
            return
        self._running.interrupt_all()
        if self._interrupts > 1:
            self._killed = True
            self._running.kill_all()
            self._poll_trials()

    def _enqueue(self) -> None:
        now = self._clock.monotonic()
        if self._stop is None and now >= self._enqueued_due:
            self._enqueued_due = now + self._settings.idle_s
            self._queue.enqueue(self._study.read_enqueued())

    def _share_memory(self) -> None:
        """Decide how trials and the model's server share memory from now on."""
        self._queue.choose_mode()
        self._placement.update_model_claim()
        for event in self._residency.take_events():
            self._events.publish(event.kind, event.message, data=event.data)

    def _ask_creator(self) -> None:
        if self._stop is None:
            self._queue.ask(self._left.trials)

    def _collect_proposals(self) -> None:
        try:
            self._queue.collect(self._left.trials)
        except Exception as error:  # noqa: BLE001 - raised after the running trials have ended
            self._request_stop(f"the Creator failed ({type(error).__name__}: {error})", error)

    def _start_waiting(self) -> None:
        """Start waiting trials in their order, as long as each has a place."""
        running = len(self._running)
        if self._table.waiting and self._placement.refresh_inventory():
            self._queue.recompute_needs()
        for trial in self._table.waiting:
            if not self._may_start():
                return
            need = self._placement.memory_need(trial.config)
            reason = self._placement.why_impossible(need)
            place = self._placement.find_place(need)
            if place is None and reason is None:
                # The trials after it wait too: their order is kept.
                self._wait_for_place(need, has_started=len(self._running) > running)
                return
            if reason is None and self._target.check_config:
                reason = self._target.check_config(trial.config)
            # An interrupted trial was accepted before, and is not refused now.
            if reason is not None and trial.state is State.QUEUED:
                self._refuse(trial, reason)
                continue
            place = None if place is None else self._placement.claim_place(trial.number, need)
            if place is None:  # it is the turn of another study
                return
            self._refused_in_a_row = 0
            self._running.start(self._table.start(trial), place)
            self._events.publish("started", format_config(self._task, trial.config), trial)

    def _wait_for_place(self, need: MemoryNeed, *, has_started: bool) -> None:
        """Do what frees a place; `has_started` says whether trials were started in this turn."""
        if (why := self._placement.update_blocked_by(need)) is not None:
            self._events.publish("note", why)
        self._placement.request_turn(need)
        if not has_started:  # else more proposals may be wanted first
            self._queue.offload_model(need, self._left.trials)

    def _may_start(self) -> bool:
        left = self._left.trials
        return self._stop is None and (left is None or left > len(self._running))

    def _refuse(self, trial: Trial, reason: str) -> None:
        self._events.publish("infeasible", reason, self._table.mark_infeasible(trial, reason))
        self._refused_in_a_row += 1
        if self._refused_in_a_row == self._settings.max_refusals:
            why = f"{self._refused_in_a_row} infeasible proposals in a row; the last: {reason}"
            self._request_stop(
                why, CreatorError(why, hint="narrow the space to what fits this machine")
            )

    # State and events.

    @property
    def _left(self) -> RemainingBudget:
        return budget.remaining_budget(self._task.budget, self._table.counted, self.spent)

    def _make_snapshot(self) -> Snapshot:
        return make_snapshot(
            self._task,
            self._table.trials,
            elapsed_s=self._running.elapsed_s,
            slots=self._residency.slots,
            spent=self.spent,
            remaining=self._left,
            proposing=self._queue.proposing,
            stop_reason=self._stop.reason if self._stop else "",
            blocked_by=self._placement.blocked_by,
        )
