"""Keeps proposals ready for free slots: how many to ask for, when, and which to discard.

Proposals are made while trials run, whenever the model's server can be awake beside them, for all
free slots at once. They are prefetched only where waiting for them would take time
(`sharing.count_prefetch`), and stay in a buffer, where newer ones replace them when they are stale.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from localhpo.errors import SpaceExhaustedError
from localhpo.resources.placement import MemoryNeed
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.scheduler.observer import EventKind
from localhpo.scheduler.proposal_buffer import find_reference
from localhpo.scheduler.proposer import Proposer
from localhpo.scheduler.running_trials import RunningTrials
from localhpo.scheduler.snapshot import format_config
from localhpo.scheduler.trial_table import TrialTable
from localhpo.scheduler.worker import Worker
from localhpo.task import Task
from localhpo.trial import Config, Proposal, Trial

_RECENT = 24
"""Number of last trials that predict what the next ones need; fewer would misjudge mixed sizes."""

Publish = Callable[[EventKind, str, Trial | None], None]
"""Publishes an event: its kind, a sentence, and the trial it is about."""


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
        residency: ModelResidency,
        proposer: Proposer,
        worker: Worker,
        publish: Publish,
    ) -> None:
        self._task = task
        self._table = table
        self._running = running
        self._residency = residency
        self._proposer = proposer
        self._worker = worker
        self._publish = publish
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
        self._needs.extend(self._running.memory_need(config) for config in self._configs)

    def choose_mode(self) -> None:
        """Decide how the model's server and trials like the last ones share memory."""
        if self.proposing:  # the size of the queue is about to change
            return
        self._residency.choose_mode(
            list(self._needs) or [self._running.memory_need(None)],
            trial_s=self._running.mean_trial_s,
            propose_s=self._proposer.mean_propose_s,
            results=self._table.counted,
        )

    def ask(self, left: int | None) -> None:
        """Ask the Creator for proposals where they are wanted; wake its model first, if needed."""
        wanted = self._count_wanted(left)
        self._residency.wake_pending = wanted > 0 and not self._residency.is_ready
        if wanted <= 0 or self._worker.busy or self._proposer.busy:
            return
        if self._residency.is_ready:
            self._proposer.ask(self._table.trials, self._table.next_number, wanted)
        elif self._running.claim_model_memory():
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
            self._publish("note", f"nothing new is left to try: {error}", None)
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
            self._needs.append(self._running.memory_need(trial.config))
            text = f"{proposal.origin}: {format_config(self._task, trial.config)}"
            self._publish("proposed", text, trial)

    def offload_model(self, need: MemoryNeed, left: int | None) -> None:
        """Offload the model's server, where that lets a trial with this need run now."""
        if self._worker.busy or self._proposer.busy:
            return
        if self._residency.is_ready and self._count_wanted(left) > 0:
            return  # it makes all proposals that will be needed first
        is_last = self.exhausted or (left is not None and left <= len(self._running) + self.size)
        way = self._residency.find_offload(
            need, self._running.assignments, self._running.other_claims, is_last=is_last
        )
        if way is not None:
            self._worker.start(partial(self._residency.offload, way))

    def _count_wanted(self, left: int | None) -> int:
        """Return how many proposals to ask for now: for free slots, and to prefetch."""
        if self.exhausted or not self._residency.should_ask(self.size, len(self._running)):
            return 0
        slots = self._residency.slots + self._residency.prefetch_count
        fresh = self.size
        # Stale proposals are replaced only while the server is awake: waking it costs more.
        if self._residency.is_ready and self._proposer.buffer:
            best = find_reference(self._table.trials, self._task.objectives)
            fresh -= self._proposer.buffer.count_stale(best)
        return (slots if left is None else min(slots, left)) - len(self._running) - fresh

    def _report_discarded(self, proposals: Sequence[Proposal], why: str) -> None:
        for proposal in proposals:
            text = f"{proposal.origin}: {format_config(self._task, proposal.config)}"
            self._publish("dropped", f"a prefetched proposal was discarded: {why}: {text}", None)
