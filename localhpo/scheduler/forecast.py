"""Forecast of how long the remaining trials take: a small simulation of the loop.

It follows the rules of the loop: what a slot waits for, when the model is asked and may be
offloaded (`should_ask`, which the loop itself uses), and that one call asks for proposals for all
slots. It knows two kinds of places, on the server's device and on all others, and trials of one
size, whose lengths vary so that they do not all end at once. The lengths are drawn with a fixed
seed: equal plans take equal times. Not simulated: stale proposals that are made anew, and that a
call for more proposals takes longer.
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

MAX_SIMULATED = 256
"""Number of trials simulated; the time of further ones is proportional."""

_SPREAD = 0.35
"""Lengths vary uniformly by this share of the mean, to each side: a standard deviation of 0.2."""

_PAIRS = 2
"""Number of pairs of rollouts; long trials of one are short in the other."""


def _draw_lengths(pairs: int) -> Iterator[tuple[float, ...]]:
    """Yield lengths of trials, as multiples of the mean, for each rollout; always the same."""
    rng = random.Random(0)
    for _ in range(pairs):
        deviations = [rng.uniform(-_SPREAD, _SPREAD) for _ in range(2 * MAX_SIMULATED)]
        yield tuple(1 + x for x in deviations)
        yield tuple(1 - x for x in deviations)


_LENGTHS = tuple(_draw_lengths(_PAIRS))


@dataclass(frozen=True, slots=True)
class SharingPlan:
    """A mode of sharing in whole slots, and the present state of the study."""

    slots_resident: int
    """Slots on the server's device while the server is resident."""
    slots_offloaded: int
    """Slots there while it is offloaded; equal to `slots_resident` where it stays resident."""
    slots_elsewhere: int
    """Slots on the other devices."""
    slots: int
    """Slots that proposals are wanted for: all of these, or more where sizes are mixed."""
    prefetch: int
    """Number of proposals wanted beyond those that free slots wait for."""
    trial_s: float
    """Mean length of a trial."""
    propose_s: float
    """Time of one call for proposals."""
    offload_s: float = 0.0
    """Time from resident to offloaded."""
    restore_s: float = 0.0
    """Time from offloaded to resident."""
    first_restore_s: float = 0.0
    """Time from the server's present state to resident; 0 where it is resident."""
    buffered: int = 0
    """Number of proposals that wait for a slot."""
    server_device_ages_s: tuple[float, ...] = ()
    """How long each trial on the server's device has run."""
    other_ages_s: tuple[float, ...] = ()
    """How long each other trial has run."""

    @property
    def offloads(self) -> bool:
        """Whether the server is offloaded to free slots."""
        return self.slots_offloaded > self.slots_resident


def should_ask(
    *, is_resident: bool, buffered: int, running: int, slots: int, elsewhere: float
) -> bool:
    """Return whether to ask for proposals now, in a mode that offloads the server.

    An offloaded server is restored when a slot has nothing to run. Where trials run on other
    devices, it is restored while these still have buffered proposals, which keep them busy until
    the server's own device is free. A resident server is asked before it would have to be restored
    again at once.
    """
    if is_resident:
        return buffered <= max(elsewhere, slots - running)
    return buffered <= elsewhere and running < slots


@lru_cache(maxsize=64)
def estimate_remaining_s(plan: SharingPlan, trials_left: int) -> float:
    """Return the mean time until the last of these further trials has ended."""
    simulated = min(trials_left, MAX_SIMULATED)
    mean_s = fmean(_Rollout(plan, simulated, lengths).run() for lengths in _LENGTHS)
    return mean_s * (trials_left / simulated if trials_left else 1.0)


class _Rollout:
    """One simulated course of the remaining study, event by event."""

    def __init__(self, plan: SharingPlan, trials_left: int, lengths: Sequence[float]) -> None:
        self._lengths = cycle(lengths)
        self._plan = plan
        self._trials_left = trials_left
        self._buffered = plan.buffered
        self._is_resident = plan.first_restore_s == 0
        self._restore_s = plan.first_restore_s or plan.restore_s
        self._now_s = 0.0
        self._running = {True: 0, False: 0}  # on the server's device or not -> number of trials
        self._ends: list[tuple[float, bool]] = []
        self._server_done_s = math.inf  # when the server ends what it does now
        self._then_resident = True
        self._then_buffered = 0  # number of proposals that come of it
        self._restore_pending = False
        for age_s in plan.server_device_ages_s:
            self._start(True, age_s)
        for age_s in plan.other_ages_s:
            self._start(False, age_s)

    def run(self) -> float:
        """Return when all trials have ended."""
        while self._trials_left or self._ends:
            self._ask()
            self._start_buffered()
            self._offload()
            self._advance()
        return self._now_s

    def _start_buffered(self) -> None:
        while self._buffered and self._trials_left:
            on_server_device = self._find_slot()
            if on_server_device is None:
                return
            self._start(on_server_device)
            self._buffered -= 1
            self._trials_left -= 1

    def _start(self, on_server_device: bool, age_s: float = 0.0) -> None:
        self._running[on_server_device] += 1
        length_s = self._plan.trial_s * next(self._lengths)
        heappush(self._ends, (self._now_s + max(0.0, length_s - age_s), on_server_device))

    def _find_slot(self) -> bool | None:
        """Return whether the next trial starts on the server's device; None without a free slot.

        The place with the larger free share is taken.
        """
        plan = self._plan
        must_fit_beside = self._is_resident or self._restore_pending
        slots = plan.slots_resident if must_fit_beside else plan.slots_offloaded
        free_there = (slots - self._running[True]) / max(1, slots)
        free_elsewhere = (plan.slots_elsewhere - self._running[False]) / max(
            1, plan.slots_elsewhere
        )
        if max(free_there, free_elsewhere) <= 0:
            return None
        return free_there > free_elsewhere

    def _ask(self) -> None:
        """Ask for proposals, or restore the server, where wanted and its memory is free."""
        wanted = self._count_wanted()
        self._restore_pending = wanted > 0 and not self._is_resident
        if wanted <= 0 or self._server_done_s < math.inf:
            return
        if self._is_resident:
            self._occupy_server(self._plan.propose_s, proposals=wanted)
        elif self._running[True] <= self._plan.slots_resident:
            self._is_resident = True  # it takes its memory from now on
            self._occupy_server(self._restore_s)
            self._restore_s = self._plan.restore_s

    def _offload(self) -> None:
        """Offload the server, where that lets a trial run."""
        has_slot = len(self._ends) < self._plan.slots_offloaded + self._plan.slots_elsewhere
        waits = self._buffered and self._trials_left and has_slot
        is_idle = self._server_done_s == math.inf
        if waits and self._is_resident and self._plan.offloads and is_idle:
            self._occupy_server(self._plan.offload_s, resident=False)

    def _occupy_server(self, seconds: float, *, resident: bool = True, proposals: int = 0) -> None:
        """Let the server be busy, and be resident and have made proposals afterwards."""
        self._server_done_s = self._now_s + seconds
        self._then_resident, self._then_buffered = resident, proposals

    def _count_wanted(self) -> int:
        plan, running = self._plan, len(self._ends)
        if plan.offloads and not should_ask(
            is_resident=self._is_resident,
            buffered=self._buffered,
            running=running,
            slots=plan.slots,
            elsewhere=plan.slots_elsewhere,
        ):
            return 0
        wanted = min(plan.slots + plan.prefetch, self._trials_left + running)
        return wanted - running - self._buffered

    def _advance(self) -> None:
        """Go to the next event: the end of what the server does, or of a trial."""
        end_s = self._ends[0][0] if self._ends else math.inf
        if self._server_done_s <= end_s:
            self._now_s, self._server_done_s = self._server_done_s, math.inf
            self._is_resident = self._then_resident
            self._buffered += self._then_buffered
        else:
            self._now_s, on_server_device = heappop(self._ends)
            self._running[on_server_device] -= 1
