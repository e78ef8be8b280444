"""Keeps proposals ready for free slots: how many to ask for, when, and which to discard.

Proposals are made while trials run, whenever the model's server can be awake beside them, for all
free slots at once. They are prefetched only where waiting for them would take time
(`sharing.count_prefetch`), and recorded only when a slot is free.

A prefetched proposal is stale when the best trial has changed since it was made: the Creator might
propose something else now. It is then asked again. Until it has answered, a free slot takes a stale
proposal rather than stay empty. With several objectives no proposal is stale: the set of best
trials changes so often that most would be.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from localhpo.creator.protocol import Creator, History
from localhpo.errors import ConfigurationError, CreatorError, SpaceExhaustedError
from localhpo.executor.clock import Clock
from localhpo.objective import Objective, best_trial
from localhpo.resources.placement import MemoryNeed
from localhpo.scheduler.events import EventBus, format_config
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.scheduler.running_trials import RunningTrials
from localhpo.scheduler.trial_placement import TrialPlacement
from localhpo.scheduler.trial_table import TrialTable
from localhpo.scheduler.worker import SimulatedWorker, ThreadWorker, Worker
from localhpo.space import Space
from localhpo.space.values import show_value
from localhpo.task import Task
from localhpo.trial import Config, Proposal, State, Trial

_RECENT = 24
"""Number of last trials that predict what the next ones need; fewer would misjudge mixed sizes."""

_ENGINE_WAIT_S = 0.02
"""An engine answers within this, so that a free slot need not wait for the loop's next turn."""

_MEAN_OVER = 8
"""Number of last calls that the mean duration of a call is taken over."""


@dataclass(frozen=True, slots=True)
class BufferedProposal:
    """A prefetched proposal."""

    proposal: Proposal
    best: int | None
    """Number of the best trial when the proposal was made."""


class ProposalBuffer:
    """The prefetched proposals of a study, oldest first."""

    def __init__(self, space: Space) -> None:
        """Start empty."""
        self._space = space
        self._buffered: deque[BufferedProposal] = deque()

    def __len__(self) -> int:
        return len(self._buffered)

    def add(self, proposals: Sequence[Proposal], best: Trial | None) -> list[Proposal]:
        """Add proposals that were made when `best` was the best trial.

        Returns:
            The stale proposals that they replace: the oldest first, at most one for each.
        """
        stale = self.find_stale(best)[: len(proposals)]
        number = None if best is None else best.number
        self._buffered.extend(BufferedProposal(proposal, number) for proposal in proposals)
        return self._remove(stale)

    def pop(self) -> Proposal:
        """Remove and return the oldest proposal."""
        return self._buffered.popleft().proposal

    def as_trials(self, next_number: int) -> tuple[Trial, ...]:
        """Return the proposals as queued trials, to be shown to the Creator."""
        return tuple(
            Trial(number=next_number + i, state=State.QUEUED, proposal=buffered.proposal)
            for i, buffered in enumerate(self._buffered)
        )

    def remove_equal(self, trials: Sequence[Trial]) -> list[Proposal]:
        """Remove and return the proposals that a trial has by now, as when a user enqueues one."""
        known = {self._space.key(trial.config) for trial in trials}
        return self._remove(
            [b for b in self._buffered if self._space.key(b.proposal.config) in known]
        )

    def find_stale(self, best: Trial | None) -> list[BufferedProposal]:
        """Return the proposals that were made before `best` was the best trial."""
        number = None if best is None else best.number
        return [buffered for buffered in self._buffered if buffered.best != number]

    def _remove(self, removed: Sequence[BufferedProposal]) -> list[Proposal]:
        for buffered in removed:
            self._buffered.remove(buffered)
        return [buffered.proposal for buffered in removed]


def find_reference(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """Return the best trial, by which proposals are stale; None with several objectives."""
    return best_trial(trials, objectives) if len(objectives) == 1 else None


def propose_valid(creator: Creator, history: History, n: int) -> list[Proposal]:
    """Return up to `n` proposals of a Creator, on the grid, after checking that they are new.

    Raises:
        CreatorError: the Creator breaks a law of its protocol.
        Exception: what the Creator raised.
    """
    name, space = creator.name, history.task.space
    proposals = creator.propose(history, n)
    if not isinstance(proposals, Sequence) or not all(isinstance(p, Proposal) for p in proposals):
        raise CreatorError(f"{name} must return a list of proposals; got {show_value(proposals)}")
    if not 1 <= len(proposals) <= n:
        raise CreatorError(f"{name} must make 1 to {n} proposals, made {len(proposals)}")
    known = {space.key(t.config): f"trial {t.number} ({t.state})" for t in history.trials}
    valid: list[Proposal] = []
    for proposal in proposals:
        try:
            config = space.canonical(proposal.config)
        except ConfigurationError as error:
            proposed = show_value(dict(proposal.config))
            raise CreatorError(
                f"{name} must propose configurations of the space; it proposed {proposed}: {error}"
            ) from error
        key = space.key(config)
        if key in known:
            raise CreatorError(
                f"{name} must propose new configurations; it proposed {space.text(config)}, "
                f"which is {known[key]}"
            )
        known[key] = "another of its proposals"
        valid.append(dataclasses.replace(proposal, config=config))
    return valid


class Proposer:
    """Calls a Creator beside the loop, and buffers its proposals until they are needed.

    One job runs at a time. What the Creator raised is raised by `collect`.

    Args:
        creator: Makes the proposals; its owner closes it.
        history: Has the task and the seed; its trials are ignored.
        clock: Measures how long a call takes.
        concurrent: Whether the Creator has a thread of its own; False for simulations.
    """

    def __init__(
        self, creator: Creator, history: History, clock: Clock, *, concurrent: bool
    ) -> None:
        self._creator = creator
        self._worker: Worker = ThreadWorker() if concurrent else SimulatedWorker(clock)
        self._clock = clock
        self._history = history
        self._busy = False
        self._answer: Sequence[Proposal] | BaseException = ()
        self._best: Trial | None = None  # when the Creator was called
        self._took_s: deque[float] = deque(maxlen=_MEAN_OVER)
        self.buffer = ProposalBuffer(history.task.space)
        """Prefetched proposals."""

    @property
    def busy(self) -> bool:
        """Whether a call runs, or its result has not been collected yet."""
        return self._busy

    @property
    def idle(self) -> bool:
        """Whether a job may be started."""
        return not self._busy and not self._worker.busy

    @property
    def mean_propose_s(self) -> float:
        """Mean duration of a call; 0 before the first."""
        return sum(self._took_s) / len(self._took_s) if self._took_s else 0.0

    def wake_model(self, wake: Callable[[], None]) -> None:
        """Wake the model. It is asked afterwards, with the trials that end meanwhile.

        To be called only while it is idle, like `ask` and `offload_model`.
        """

        def job() -> Sequence[Proposal]:
            wake()
            return ()

        self._start(job)

    def offload_model(self, offload: Callable[[], None]) -> None:
        """Offload the model."""
        self._worker.start(offload)

    def ask(self, trials: Sequence[Trial], next_number: int, n: int) -> None:
        """Ask for up to `n` proposals beside the buffered ones.

        Args:
            trials: All trials of the study.
            next_number: The number of the next trial.
            n: How many.
        """
        history = dataclasses.replace(
            self._history,
            trials=(*trials, *self.buffer.as_trials(next_number)),
            next_number=next_number + len(self.buffer),
        )
        self._best = find_reference(history.trials, history.task.objectives)
        self._start(lambda: self._propose(history, n), wait_s=_ENGINE_WAIT_S)

    def collect(self) -> list[Proposal]:
        """Move new proposals into the buffer; return the stale ones that they replace.

        Raises:
            Exception: What the Creator raised.
        """
        if not self._busy or self._worker.busy:
            return []
        self._busy = False
        answer, self._answer = self._answer, ()
        if isinstance(answer, BaseException):
            raise answer
        return self.buffer.add(answer, self._best)

    def close(self) -> None:
        """Take no further job."""
        self._worker.close()

    def _start(self, job: Callable[[], Sequence[Proposal]], *, wait_s: float = 0.0) -> None:
        def work() -> None:
            try:
                self._answer = job()
            except BaseException as error:  # noqa: BLE001 - `collect` raises it, in the loop
                self._answer = error

        self._busy = True
        self._worker.start(work, wait_s=wait_s)

    def _propose(self, history: History, n: int) -> Sequence[Proposal]:
        began_s = self._clock.monotonic()
        proposals = propose_valid(self._creator, history, n)
        self._took_s.append(self._clock.monotonic() - began_s)
        return proposals


class ProposalQueue:
    """Proposals that wait for a slot: queued trials, and the buffer of prefetched proposals.

    Throughout, `left` is the number of trials that the budget still allows, running ones included;
    None for no bound.
    """

    def __init__(
        self,
        *,
        task: Task,
        table: TrialTable,
        running: RunningTrials,
        placement: TrialPlacement,
        residency: ModelResidency,
        proposer: Proposer,
        events: EventBus,
    ) -> None:
        self._task = task
        self._table = table
        self._running = running
        self._placement = placement
        self._residency = residency
        self._proposer = proposer
        self._events = events
        # Of the last trials:
        self._configs: deque[Config] = deque((t.config for t in table.waiting), maxlen=_RECENT)
        self._needs: deque[MemoryNeed] = deque(maxlen=_RECENT)
        self.recompute_needs()
        self.exhausted = False
        """Whether nothing new is left in the space."""

    @property
    def proposing(self) -> bool:
        """Whether the Creator is called or its model wakes, and the result is not collected yet."""
        return self._proposer.busy

    @property
    def size(self) -> int:
        """Number of queued trials and prefetched proposals."""
        return len(self._table.waiting) + len(self._proposer.buffer)

    def recompute_needs(self) -> None:
        """Compute what the last trials need, again where what others hold has changed."""
        self._needs.clear()
        self._needs.extend(self._placement.memory_need(config) for config in self._configs)

    def choose_mode(self) -> None:
        """Decide how the model's server and trials like the last ones share memory."""
        if self.proposing:  # the size of the queue is about to change
            return
        self._residency.choose_mode(
            list(self._needs) or [self._placement.memory_need(None)],
            trial_s=self._running.mean_trial_s,
            propose_s=self._proposer.mean_propose_s,
            results=self._running.completed,
            sizes_known=bool(self._needs),
        )

    def ask(self, left: int | None) -> None:
        """Ask the Creator for proposals where they are wanted; wake its model first, if needed."""
        wanted = self._count_wanted(left)
        self._residency.wake_pending = wanted > 0 and not self._residency.is_ready
        if wanted <= 0 or not self._proposer.idle:
            return
        if self._residency.is_ready:
            self._proposer.ask(self._table.trials, self._table.next_number, wanted)
        elif self._placement.claim_model_memory():
            self._proposer.wake_model(self._residency.begin_wake())

    def collect(self, left: int | None) -> None:
        """Collect what the Creator proposed, and queue trials for free slots.

        Raises:
            Exception: What the Creator raised.
        """
        try:
            replaced = self._proposer.collect()
            self._report_discarded(replaced, "a better trial has finished since it was made")
        except SpaceExhaustedError as error:
            self.exhausted = True
            self._events.publish("note", f"nothing new is left to try: {error}")
        buffer, slots = self._proposer.buffer, self._residency.slots
        slots = slots if left is None else min(slots, left)
        free = slots - len(self._running) - len(self._table.waiting)
        self.queue([buffer.pop() for _ in range(min(free, len(buffer)))])

    def enqueue(self, proposals: Sequence[Proposal]) -> None:
        """Queue proposals from outside, and discard prefetched ones of the same configurations."""
        self.queue(proposals)
        if proposals:
            equal = self._proposer.buffer.remove_equal(self._table.trials)
            self._report_discarded(equal, "the user enqueued the same configuration")

    def queue(self, proposals: Sequence[Proposal]) -> None:
        """Queue a trial for each proposal."""
        for proposal in proposals:
            trial = self._table.queue(proposal)
            self._configs.append(trial.config)
            self._needs.append(self._placement.memory_need(trial.config))
            text = f"{proposal.origin}: {format_config(self._task, trial.config)}"
            self._events.publish("proposed", text, trial)

    def offload_model(self, need: MemoryNeed, left: int | None) -> None:
        """Offload the model's server, where that lets a trial with this need run now."""
        if not self._proposer.idle:
            return
        if self._residency.is_ready and self._count_wanted(left) > 0:
            return  # it makes all proposals that will be needed first
        is_last = self.exhausted or (left is not None and left <= len(self._running) + self.size)
        way = self._residency.find_offload(
            need, self._running.assignments, self._placement.other_claims, is_last=is_last
        )
        if way is not None:
            self._proposer.offload_model(partial(self._residency.offload, way))

    def _count_wanted(self, left: int | None) -> int:
        """Return how many proposals to ask for now: for free slots, and to prefetch."""
        if self.exhausted or not self._residency.should_ask(self.size, len(self._running)):
            return 0
        slots = self._residency.slots + self._residency.prefetch_count
        fresh = self.size
        # Stale proposals are replaced only while the server is awake: waking it costs more.
        if self._residency.is_ready and self._proposer.buffer:
            best = find_reference(self._table.trials, self._task.objectives)
            fresh -= len(self._proposer.buffer.find_stale(best))
        return (slots if left is None else min(slots, left)) - len(self._running) - fresh

    def _report_discarded(self, proposals: Sequence[Proposal], why: str) -> None:
        for proposal in proposals:
            text = f"{proposal.origin}: {format_config(self._task, proposal.config)}"
            self._events.publish("dropped", f"a prefetched proposal was discarded: {why}: {text}")
