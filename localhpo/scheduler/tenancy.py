"""The model's server among the trials: when it may be asked, and when it makes room.

What it holds is counted in the ledger of memory like any trial: as awake from the moment it is
asked to wake, as resting only once it rests. What a rest freed is measured: a sleep that freed
less than half is none, and the server is stopped from then on.

The loop's thread decides; waking, asking and going to rest are done by its worker, one after
the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from localhpo.errors import InputError, ModelError
from localhpo.executor.clock import Clock
from localhpo.scheduler import forecast, placement, sharing
from localhpo.scheduler.durations import Durations
from localhpo.scheduler.news import Act, Bulletin, News
from localhpo.scheduler.placement import Assignment, Inventory, Need
from localhpo.scheduler.room import Room, Rooms
from localhpo.scheduler.sharing import RESTING, Decision, Mode, Numbers, Standing
from localhpo.scheduler.tenant import InProcess, Rest, Tenant
from localhpo.task import Resources

_MOST_ASLEEP = 0.5
"""A sleep that leaves more than this share of what was held freed nothing worth the name."""

_HOLDS: Mapping[Mode, str] = {
    "resident": "awake",
    "device": "home",
    "sleep": "sleep",
    "stop": "stop",
    "cpu": "awake",
}
"""A mode -> what the server holds in it while trials run."""


class Tenancy:
    """Keeps a server awake, or at rest, as the mode of sharing says.

    Args:
        tenant: The server; None where the model's memory is nobody's concern.
        resources: What the task declares, and how it wants memory to be shared.
        inventory: What there is.
        clock: Measures how long the server takes.

    Raises:
        InputError: the server does not fit this machine.
    """

    def __init__(
        self, tenant: Tenant | None, *, resources: Resources, inventory: Inventory, clock: Clock
    ) -> None:
        self._tenant = tenant or InProcess()
        self.shares = tenant is not None
        """Whether a model takes of what trials may use."""
        self._resources = resources
        self._inventory = inventory
        self._clock = clock
        self._standing: Standing = "awake"
        self._in_vain = False
        """Whether it was last woken in vain: it is asked all the same, see `awake`."""
        self._rested_at_s = 0.0  # a worker in simulated time is done before that time has come
        self._useless: set[Rest] = set()
        self._takes_s = Durations(clock, self._needs_mb)
        self._asleep_mb: float | None = None
        self._keeps_mb = 0.0  # of the host, asleep
        self._decision = Decision("resident", "")
        self._decided = False
        self.due = False
        """Whether it is to be woken as soon as its device has room."""
        self._changes = 0
        self._numbers = Numbers(0, 0, None, None)
        self._news = Bulletin()
        self._rooms = Rooms(resources, inventory)
        self._room: Mapping[str, Room] = {}
        holds = None if tenant is None else tenant.holds
        if why := sharing.why_in_vain(resources.sharing, holds):
            self._news.warn(f'sharing = "{resources.sharing}" has no effect: {why}')
        if not placement.has_room(inventory, [], self._tenant.holds):
            raise InputError(
                f"the model's server needs {self._needs_mb:.0f} MB, more than its device has",
                hint="choose a smaller model, or a quantized one",
            )

    @property
    def mode(self) -> Mode:
        """How memory is shared now."""
        return self._decision.mode

    @property
    def awake(self) -> bool:
        """Whether it is asked without being woken: what follows then is the Creator's business.

        So too one that could not be woken, or every question would begin with that.
        """
        return self._standing == "awake" or self._in_vain

    @property
    def holding(self) -> Assignment:
        """What to count for the server now."""
        if self._standing == "awake" or self._clock.monotonic() < self._rested_at_s:
            return self._awake_by_mode
        return self._resting("sleep" if self._standing == "asleep" else "stop")

    @property
    def kept_free(self) -> Assignment:
        """What trials must leave it: what it holds, or needs to be awake where that is due.

        Else they would go on to follow one another on its device.
        """
        return self._awake_by_mode if self.due else self.holding

    @property
    def awake_holding(self) -> Assignment:
        """What it holds while it is awake."""
        return self._tenant.holds

    @property
    def least(self) -> Assignment:
        """What it holds at the least, while a trial runs that needs all there is."""
        ways = self._ways_now
        if self._resources.sharing in ("resident", "device", "cpu") or not ways:
            return self._tenant.holds
        return self._resting("sleep" if "sleep" in ways else "stop")

    @property
    def least_ever(self) -> Assignment:
        """What it holds while it makes all the room that it can, at the cost that this has."""
        ways = self._ways
        if self._resources.sharing in ("resident", "device", "cpu") or not ways:
            return self._tenant.holds
        return self._resting("stop" if "stop" in ways else "sleep")

    @property
    def slots(self) -> int:
        """How many trials run at once in the present mode, at most.

        The first question comes before the mode, and is for any that may be chosen then.
        """
        if self._resources.sharing == "auto" and self._numbers.blank:
            return max(self._room[name].most for name in ("awake", *self._ways_now))
        return self._most(self.mode)

    @property
    def ahead(self) -> int:
        """How many proposals to have in hand beyond those."""
        return sharing.ahead(self.mode, max(1, self.slots), self._numbers)

    def take_news(self) -> list[News]:
        """Return what happened since the last call."""
        return self._news.take()

    def consider(
        self,
        needs: Sequence[Need],
        others: Sequence[Assignment],
        *,
        trial_s: float | None,
        propose_s: float,
        results: int,
        left: int | None,
        in_hand: int,
        home_ages_s: Sequence[float] = (),
        ages_s: Sequence[float] = (),
    ) -> None:
        """Decide the mode anew, from what is known now.

        Args:
            needs: Of the last trials; those that can never run do not count.
            others: What other studies hold.
            trial_s: Length of the trials seen, at the least.
            propose_s: Length of a question, seen.
            results: Trials that have ended.
            left: Trials that will still be started.
            in_hand: Proposals for them that there are.
            home_ages_s: How long each trial on the server's device has run.
            ages_s: The same for the others.
        """
        awake, ways = self._tenant.holds, self._ways_now
        if self._standing == "awake":
            self._keeps_mb = self._tenant.keeps_mb
        servers = {
            "awake": awake,
            "home": dataclasses.replace(awake, gpu_share=1.0),
            "sleep": self._resting("sleep"),
            "stop": self._resting("stop"),
        }
        self._room = self._rooms.beside(servers, needs, others, self.least_ever)
        means = {name: room.mean for name, room in self._room.items()}
        self._numbers = Numbers(
            beside=means["awake"],
            elsewhere=means["home"] if awake.gpus else 0.0,
            asleep=means["sleep"] if "sleep" in ways else None,
            stopped=means["stop"] if "stop" in ways else None,
            most={mode: self._most(mode) for mode in _HOLDS},
            propose_s=propose_s,
            rest_s={"sleep": self._takes_s["sleep"], "stop": self._takes_s["stop"]},
            back_s={"sleep": self._takes_s["wake"], "stop": self._takes_s["start"]},
            trial_s=trial_s,
            results=results,
            left=left,
            in_hand=in_hand,
            standing=self._standing,
            home_ages_s=home_ages_s,
            ages_s=ages_s,
            contended=bool(awake.gpus) == (self._resources.gpus > 0),
        )
        present = self.mode if self._decided else None
        decision = sharing.decide(self._resources.sharing, self._numbers, present, self._changes)
        if decision.mode == present:
            return
        if self.shares:
            self._news.decided(decision, self._numbers)
        self._changes += results > 0  # before, it was decided from next to nothing
        self._decision, self._decided = decision, True

    # Asking.

    def is_worth_asking(self, in_hand: int, running: int) -> bool:
        """Return whether a question is worth the waking that it may take.

        A mode that keeps the server awake has it woken in any case.
        """
        if self.mode not in ("sleep", "stop"):
            return True
        return forecast.is_worth_asking(
            awake=self.awake,
            in_hand=in_hand,
            running=running,
            slots=self.slots,
            elsewhere=self._numbers.elsewhere,
        )

    def call(self) -> Callable[[], None]:
        """Count the server as awake; return the job that wakes it where it is not."""
        before, self._standing = self._standing, "awake"
        return lambda: self._wake(before)

    # Making room.

    def rest_for(
        self,
        need: Need,
        held: Sequence[Assignment],
        others: Sequence[Assignment],
        *,
        is_last: bool,
    ) -> Rest | None:
        """Return the rest that makes room for a trial now, where the mode allows one.

        A way that costs more than the mode's own is for trials that could never run otherwise, or
        for a server that is not needed any more.

        Args:
            need: Of the trial.
            held: What the running trials of this study hold.
            others: What other studies hold.
            is_last: Whether the server will not be asked again.
        """
        if self._tenant.shared:
            return self._leave_for(need)
        if self._standing == "stopped":  # to put it to sleep would take room
            return None
        sharing_mode = self._resources.sharing
        by_mode = self.mode in ("sleep", "stop")
        forced = sharing_mode == "auto" and not self._rooms.count(need, (), self._tenant.holds)
        at_end = is_last and sharing_mode in ("auto", "device")
        if not (by_mode or forced or at_end):
            return None
        first: Rest = "stop" if self.mode == "stop" else "sleep"
        enough = first in self._ways and self._rooms.count(need, (), self._resting(first)) > 0
        for way in sorted(self._ways, key=lambda way: way != first):
            if self._standing == RESTING[way]:
                continue
            if way != first and enough and not at_end:
                continue
            beside = [*others, self._resting(way)]
            if placement.place(self._resources, self._inventory, held, need=need, others=beside):
                return way
        return None

    def _leave_for(self, need: Need) -> Rest | None:
        """Leave a server that others use to them, for a trial that cannot run beside it.

        It may rest once they are alone; else two studies could wait for each other for ever.
        """
        may = self._resources.sharing in ("auto", "sleep", "stop") and "stop" in self._tenant.rests
        fits = self._rooms.count(need, (), self._tenant.holds)
        return "stop" if may and self._standing == "awake" and not fits else None

    def rest(self, way: Rest) -> None:
        """Make room; for the worker."""
        try:
            if way == "sleep":
                self._sleep()
            else:
                self._stop()
            self._in_vain = False
        except ModelError as error:
            self._useless.add(way)
            self._news.warn(f"the server could not {way}: {error}")
            self._look()
        self._rested_at_s = self._clock.monotonic()

    @property
    def _needs_mb(self) -> float:
        return max(self._tenant.holds.memory_mb, self._tenant.holds.gpu_memory_mb)

    @property
    def _awake_by_mode(self) -> Assignment:
        """What it holds awake: a device of its own is its own in every respect."""
        share = 1.0 if self.mode == "device" and self._decided else self._tenant.holds.gpu_share
        return dataclasses.replace(self._tenant.holds, gpu_share=share)

    @property
    def _ways(self) -> frozenset[Rest]:
        """The ways to rest that work and that the user allows."""
        ways = self._tenant.rests - self._useless
        chosen = self._resources.sharing
        if chosen in ("resident", "cpu"):
            return frozenset()
        if chosen == "stop" or (chosen == "sleep" and "sleep" not in ways):
            return ways & {"stop"}
        return ways & {"sleep"} if chosen == "sleep" else ways

    @property
    def _ways_now(self) -> frozenset[Rest]:
        """Those that make room now: none while another study uses the server."""
        return frozenset() if self._tenant.shared else self._ways

    def _most(self, mode: Mode) -> int:
        return self._room[_HOLDS[mode]].most

    def _resting(self, way: Rest) -> Assignment:
        """Return what the server holds while it rests."""
        holds = self._tenant.holds
        left_mb = 0.0
        if way == "sleep":
            left_mb = min(2048.0, 0.1 * self._needs_mb)  # until it was measured
            left_mb = left_mb if self._asleep_mb is None else self._asleep_mb
        if holds.gpus:
            kept_mb = self._keeps_mb if way == "sleep" else 0.0
            return dataclasses.replace(holds, gpu_memory_mb=left_mb, memory_mb=kept_mb)
        return dataclasses.replace(holds, memory_mb=left_mb)

    # The worker's part.

    def _wake(self, standing: Standing) -> None:
        if standing == "awake":
            return
        try:
            way: Act = "wake" if standing == "asleep" else "start"
            with self._takes_s.timed(way):
                self._tenant.wake()
            self._news.did(way, self._takes_s.last_s, None, self._tenant.used_mb())
        except ModelError as error:
            self._news.warn(f"the server could not be woken: {error}")
            self._look()
            self._in_vain = self._standing != "awake"

    def _look(self) -> None:
        """Take its standing from the server itself: something went wrong half way."""
        self._standing = self._tenant.standing
        if self._standing == "asleep":
            left_mb = self._tenant.used_mb()
            self._asleep_mb = self._needs_mb if left_mb is None else left_mb
            self._keeps_mb = self._tenant.keeps_mb

    def _sleep(self) -> None:
        before_mb = self._tenant.used_mb()
        with self._takes_s.timed("sleep"):
            self._tenant.sleep()
        after_mb = self._tenant.used_mb()
        if before_mb is not None and after_mb is not None:
            if after_mb <= _MOST_ASLEEP * before_mb:
                self._asleep_mb, self._standing = after_mb, "asleep"
                self._keeps_mb = self._tenant.keeps_mb
                self._news.did("sleep", self._takes_s.last_s, before_mb, after_mb)
                return
            freed = f"freed {before_mb - after_mb:.0f} of {before_mb:.0f} MB"
        else:
            freed = "freed nobody can tell how much"
        self._useless.add("sleep")
        if "stop" in self._tenant.rests:
            self._news.warn(f"sleep {freed}: the server is stopped instead, now and later")
            self._stop()
        else:
            self._news.warn(f"sleep {freed}: the server stays awake")
            self._tenant.wake()

    def _stop(self) -> None:
        way: Act = "leave" if self._tenant.shared else "stop"
        before_mb = self._tenant.used_mb()
        with self._takes_s.timed("stop"):
            self._tenant.stop()
        self._standing = "stopped"
        self._news.did(way, self._takes_s.last_s, before_mb, self._tenant.used_mb())
