"""Where configurations come from: how many to draw, when, and what becomes of those in hand.

Proposals are drawn while trials run, whenever the model's server can be awake beside them, for
all slots that are free at once; ahead of need only where waiting would cost (`sharing.ahead`).
Those ahead stay drafts, which give way to better informed ones when they are stale.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from localhpo.errors import SpaceExhaustedError
from localhpo.scheduler import view
from localhpo.scheduler.ledger import Ledger
from localhpo.scheduler.observer import EventKind
from localhpo.scheduler.placement import Need
from localhpo.scheduler.proposer import Proposer
from localhpo.scheduler.runs import Runs
from localhpo.scheduler.tenancy import Tenancy
from localhpo.scheduler.worker import Worker
from localhpo.task import Task
from localhpo.trial import Config, Proposal, Trial, best_trial

_REMEMBERED = 24
"""So many trials say what the next ones will need: fewer would misjudge how sizes are mixed."""

Say = Callable[[EventKind, str, Trial | None], None]


class Supply:
    """Keeps the slots of a study supplied with trials.

    `left` is, throughout, what is left of the budget of trials, running ones included; None for
    no bound.
    """

    def __init__(
        self,
        *,
        task: Task,
        ledger: Ledger,
        runs: Runs,
        tenancy: Tenancy,
        proposer: Proposer,
        worker: Worker,
        say: Say,
    ) -> None:
        self._task = task
        self._ledger = ledger
        self._runs = runs
        self._tenancy = tenancy
        self._proposer = proposer
        self._worker = worker
        self._say = say
        self._configs: deque[Config] = deque(
            (trial.config for trial in ledger.waiting), maxlen=_REMEMBERED
        )  # of the last trials
        self._needs: deque[Need] = deque(maxlen=_REMEMBERED)
        self.reckon()
        self.exhausted = False
        """Nothing new is left in the space."""

    @property
    def thinking(self) -> bool:
        """Whether the Creator is asked, or its model woken for that; until that was taken up."""
        return self._proposer.busy

    @property
    def in_hand(self) -> int:
        """Trials that wait, and drafts."""
        return len(self._ledger.waiting) + len(self._proposer.drafts)

    def reckon(self) -> None:
        """Work out what the last trials need: anew, where what others hold has changed."""
        self._needs.clear()
        self._needs.extend(self._runs.need(config) for config in self._configs)

    def consider_sharing(self, left: int | None) -> None:
        """Decide how memory is shared, for trials like the last ones.

        Other studies come and go: what they hold bounds what is started, not what is wanted.
        """
        if self.thinking:  # what will be in hand is not known yet
            return
        ages_s, home_ages_s = self._ages_s()
        self._tenancy.consider(
            list(self._needs) or [self._runs.need(None)],
            [],
            trial_s=self._runs.trial_s,
            propose_s=self._proposer.question_s,
            results=self._ledger.counted,
            left=None if left is None else max(0, left - len(self._runs)),
            in_hand=self.in_hand,
            ages_s=ages_s,
            home_ages_s=home_ages_s,
        )

    def _ages_s(self) -> tuple[list[float], list[float]]:
        """Return how long trials have run: elsewhere, and on the server's device."""
        home = set(self._tenancy.awake_holding.gpus)
        ages_s: tuple[list[float], list[float]] = ([], [])
        for held, age_s in self._runs.ages_s:
            ages_s[not home.isdisjoint(held.gpus)].append(age_s)
        return ages_s

    def ask(self, left: int | None) -> None:
        """Ask the Creator, where proposals are wanted; wake its model first, where that is due."""
        wanted = self._wanted(left)
        self._tenancy.due = wanted > 0 and not self._tenancy.awake
        if wanted <= 0 or self._worker.busy or self._proposer.busy:
            return
        if self._tenancy.awake:
            self._proposer.ask(self._ledger.trials, self._ledger.next_number, wanted)
        elif self._runs.claim_server():
            self._proposer.wake(self._tenancy.call())

    def collect(self, left: int | None) -> None:
        """Take what the Creator answered, and queue what free slots wait for.

        Raises:
            Exception: what the Creator raised.
        """
        try:
            overtaken = self._proposer.collect()
            self._drop(overtaken, "drawn before the best trial was known")
        except SpaceExhaustedError as error:
            self.exhausted = True
            self._say("note", f"nothing new is left to try: {error}", None)
        drafts, slots = self._proposer.drafts, self._tenancy.slots
        slots = slots if left is None else min(slots, left)
        free = slots - len(self._runs) - len(self._ledger.waiting)
        self.queue([drafts.take() for _ in range(min(free, len(drafts)))])

    def enqueue(self, proposals: Sequence[Proposal]) -> None:
        """Queue what came from outside; a draft of the same configuration is dropped."""
        self.queue(proposals)
        if proposals:
            equal = self._proposer.drafts.drop_equal(self._ledger.trials)
            self._drop(equal, "enqueued by the user")

    def queue(self, proposals: Sequence[Proposal]) -> None:
        """Make trials of proposals."""
        for proposal in proposals:
            trial = self._ledger.queue(proposal)
            self._configs.append(trial.config)
            self._needs.append(self._runs.need(trial.config))
            text = f"{proposal.origin}: {view.spelled(self._task, trial.config)}"
            self._say("proposed", text, trial)

    def make_room(self, need: Need, left: int | None) -> None:
        """Let the model's server rest, where that lets a trial of that need run now."""
        if self._worker.busy or self._proposer.busy:
            return
        if self._tenancy.awake and self._wanted(left) > 0:
            return  # it is asked first, for all that will be needed
        is_last = self.exhausted or (left is not None and left <= len(self._runs) + self.in_hand)
        way = self._tenancy.rest_for(need, self._runs.held, self._runs.others, is_last=is_last)
        if way is not None:
            self._worker.start(partial(self._tenancy.rest, way))

    def _wanted(self, left: int | None) -> int:
        """Return how many proposals to draw now: for free slots, and ahead of need."""
        if self.exhausted or not self._tenancy.is_worth_asking(self.in_hand, len(self._runs)):
            return 0
        room = self._tenancy.slots + self._tenancy.ahead
        fresh = self.in_hand
        if self._tenancy.awake and self._proposer.drafts:  # to wake it for fresh ones costs more
            best = best_trial(self._ledger.trials, self._task.direction)
            fresh -= self._proposer.drafts.stale(best)
        return (room if left is None else min(room, left)) - len(self._runs) - fresh

    def _drop(self, proposals: Sequence[Proposal], why: str) -> None:
        for proposal in proposals:
            config = view.spelled(self._task, proposal.config)
            self._say("dropped", f"{why}: {proposal.origin}: {config}", None)
