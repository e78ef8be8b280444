"""How long the trials that are left would take: a small copy of the loop, run in no time.

The copy obeys the rules of the loop: what a slot waits for, when the server is asked and may
rest (`is_worth_asking`, which is the loop's own), and that it is asked for all slots at once. It
knows two places, the server's device (home) and all others, and trials of one kind, whose lengths
are spread, so that they do not end at once. The spread was drawn once for all: equal plans take
equal times. What it does not know: proposals that are drawn anew since they are stale, and that a
question for more of them takes longer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from itertools import cycle
from statistics import fmean

MOST = 256
"""So many trials are played; what is left beyond them takes as much longer."""

_SPREAD = 0.35
"""Lengths are spread evenly by so much of the mean, on each side: trials of a fifth's deviation."""

_COURSES = 2
"""So many pairs of courses make a forecast: what is long in one of a pair is short in the other."""


def _draw(courses: int) -> Iterator[tuple[float, ...]]:
    """Yield lengths of trials, in means, for pairs of courses; the same every time."""
    rng = random.Random(0)
    for _ in range(courses):
        longer = [rng.uniform(-_SPREAD, _SPREAD) for _ in range(2 * MOST)]
        yield tuple(1 + x for x in longer)
        yield tuple(1 - x for x in longer)


_LENGTHS = tuple(_draw(_COURSES))


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to go on, and what is known of it."""

    beside: int
    """Trials at once on the server's device while it is awake."""
    home: int
    """The same while it rests; as many as `beside` for one that is to stay awake."""
    elsewhere: int
    """Trials at once on the other devices."""
    slots: int
    """Trials at once that proposals are wanted for: those, or more where sizes are mixed."""
    ahead: int
    """Proposals to have in hand beyond those that free slots wait for."""
    trial_s: float
    """Mean length of a trial."""
    propose_s: float
    """Of one question."""
    rest_s: float = 0.0
    """From awake to rest."""
    back_s: float = 0.0
    """From there to awake."""
    wake_s: float = 0.0
    """From what the server does now to awake; 0 where it is."""
    in_hand: int = 0
    """Proposals that there are."""
    home_ages_s: tuple[float, ...] = ()
    """How long each trial on the server's device has run."""
    ages_s: tuple[float, ...] = ()
    """The same for the others."""

    @property
    def rests(self) -> bool:
        """Whether the server makes room for trials."""
        return self.home > self.beside


def is_worth_asking(
    *, awake: bool, in_hand: int, running: int, slots: int, elsewhere: float
) -> bool:
    """Return whether a question is worth the waking that it may take, for a server that rests.

    One at rest is woken when a slot has nothing to run; where trials run on other devices, while
    these have something in hand: until its own is free, that keeps them busy. One that is awake
    is asked before it would have to be woken again at once.
    """
    if awake:
        return in_hand <= max(elsewhere, slots - running)
    return in_hand <= elsewhere and running < slots


@lru_cache(maxsize=64)
def finish_s(plan: Plan, left: int) -> float:
    """Return how long it takes until the last of so many trials more has ended."""
    played = min(left, MOST)
    mean_s = fmean(_Course(plan, played, lengths).run() for lengths in _LENGTHS)
    return mean_s * (left / played if left else 1.0)


class _Course:
    """What happens, one thing after another."""

    def __init__(self, plan: Plan, left: int, lengths: Sequence[float]) -> None:
        self._lengths = cycle(lengths)
        self._plan = plan
        self._left = left
        self._in_hand = plan.in_hand
        self._awake = plan.wake_s == 0
        self._wake_s = plan.wake_s or plan.back_s
        self._now_s = 0.0
        self._at = {True: 0, False: 0}  # how many run at home, and elsewhere
        self._ends: list[tuple[float, bool]] = []
        self._done_s = math.inf  # when the server is done with what it does
        self._then_awake = True
        self._then_in_hand = 0  # so many proposals more
        self._due = False  # to be woken
        for age_s in plan.home_ages_s:
            self._start(True, age_s)
        for age_s in plan.ages_s:
            self._start(False, age_s)

    def run(self) -> float:
        """Return when all trials have ended."""
        while self._left or self._ends:
            self._ask()
            self._start_waiting()
            self._make_room()
            self._advance()
        return self._now_s

    def _start_waiting(self) -> None:
        while self._in_hand and self._left:
            at_home = self._place()
            if at_home is None:
                return
            self._start(at_home)
            self._in_hand -= 1
            self._left -= 1

    def _start(self, at_home: bool, age_s: float = 0.0) -> None:
        self._at[at_home] += 1
        length_s = self._plan.trial_s * next(self._lengths)
        heappush(self._ends, (self._now_s + max(0.0, length_s - age_s), at_home))

    def _place(self) -> bool | None:
        """Return whether the next trial has its place at home; None where there is no room."""
        plan = self._plan
        home = plan.beside if self._awake or self._due else plan.home
        at_home = (home - self._at[True]) / max(1, home)
        apart = (plan.elsewhere - self._at[False]) / max(1, plan.elsewhere)
        if max(at_home, apart) <= 0:
            return None
        return at_home > apart

    def _ask(self) -> None:
        """Ask the server, or wake it, where proposals are wanted and its device has room."""
        wanted = self._wanted()
        self._due = wanted > 0 and not self._awake
        if wanted <= 0 or self._done_s < math.inf:
            return
        if self._awake:
            self._occupy(self._plan.propose_s, brings=wanted)
        elif self._at[True] <= self._plan.beside:
            self._awake = True  # in that its device is not free
            self._occupy(self._wake_s)
            self._wake_s = self._plan.back_s

    def _make_room(self) -> None:
        """Let it rest, where that lets a trial run."""
        has_room = len(self._ends) < self._plan.home + self._plan.elsewhere
        waits = self._in_hand and self._left and has_room
        if waits and self._awake and self._plan.rests and self._done_s == math.inf:
            self._occupy(self._plan.rest_s, awake=False)

    def _occupy(self, seconds: float, *, awake: bool = True, brings: int = 0) -> None:
        """Let the server do something; say what comes of it."""
        self._done_s = self._now_s + seconds
        self._then_awake, self._then_in_hand = awake, brings

    def _wanted(self) -> int:
        plan, running = self._plan, len(self._ends)
        if plan.rests and not is_worth_asking(
            awake=self._awake,
            in_hand=self._in_hand,
            running=running,
            slots=plan.slots,
            elsewhere=plan.elsewhere,
        ):
            return 0
        return min(plan.slots + plan.ahead, self._left + running) - running - self._in_hand

    def _advance(self) -> None:
        end_s = self._ends[0][0] if self._ends else math.inf
        if self._done_s <= end_s:
            self._now_s, self._done_s = self._done_s, math.inf
            self._awake = self._then_awake
            self._in_hand += self._then_in_hand
        else:
            self._now_s, at_home = heappop(self._ends)
            self._at[at_home] -= 1
