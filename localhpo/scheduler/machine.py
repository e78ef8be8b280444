"""The studies of one user on one machine: one ledger of CPUs, memory and devices, and fair turns.

Every running study has an entry in a file of the user's runtime folder, which is read and
written under a lock of the kernel: what its trials and its server hold, what it waits for, how
much it has used. Entries of processes that are gone (by process id and start) are dropped by
whoever reads the file next, so a study that was killed holds nothing. A server of a model that
several studies use is held by each of them, and counts once.

Turns: of the studies that wait, the one that has used the least goes first. Use is the time that
a study held its dominant share, the larger of its shares of the CPUs and of the devices, divided
by its priority (dominant resource fairness, https://www.usenix.org/conference/nsdi11). A
newcomer begins level with the one that has used the least, so it cannot have the machine to
itself until it has caught up. A study gives way where the one before it could start now, or has
waited for long: then room must be left to build up for it.

What is not covered: studies of other users, other programs, several machines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localhpo import runtime
from localhpo.scheduler import placement
from localhpo.scheduler.placement import Assignment, Inventory, Need, Part
from localhpo.task import Resources

_FILE = "machine.json"

SERVER = "server"
"""The key of what the model's server holds."""

_PATIENCE_S = 60.0
"""A study that has waited for so long is waited for, though smaller trials would fit."""

_FORGOTTEN_S = 10.0
"""A study that waits, but has not asked for so long (it was suspended), keeps nobody waiting."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the file says of one running study."""

    pid: int
    started: int
    """When its process started: see `runtime.start_of`."""
    study: str
    priority: float = 1.0
    used_s: float = 0.0
    """Dominant share times seconds, of claims that have ended."""
    claims: Mapping[str, Assignment] = field(default_factory=dict)
    """By the number of the trial, or `SERVER`."""
    since: Mapping[str, float] = field(default_factory=dict)
    """When each claim was made."""
    wish: Assignment | None = None
    """What it waits for."""
    waits_since: float = 0.0
    seen: float = 0.0
    """When it last asked."""
    server: int | None = None
    """The process of the model's server that it uses."""
    part: Part = field(default_factory=Part)
    """Of the machine, that it may use: others count what it holds where they share that."""
    by_hand: bool = False
    """Whether its process may hold more than it claims: trials are run by hand there."""


class Machine:
    """One study's part in the ledger of its machine, from construction to `close`.

    Args:
        study: Its name, for people.
        inventory: What there is.
        priority: Twice as much is twice the turns.
        folder: Of the ledger.
        server: Tells the process of the model's server, which other studies may use too.
        by_hand: Whether only the model's server is claimed for: trials are run by hand.
        now: Tells the time, in seconds since the epoch.

    Raises:
        LocalHPOError: the folder cannot be used.
    """

    def __init__(
        self,
        study: str,
        inventory: Inventory,
        *,
        priority: float = 1.0,
        folder: Path | None = None,
        server: Callable[[], int | None] = lambda: None,
        by_hand: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._inventory = inventory
        self._now = now
        self._server = server
        self._folder = folder or runtime.folder()
        pid = os.getpid()
        start = runtime.start_of(pid)
        self._me = Entry(pid, start, study, priority, part=inventory.part, by_hand=by_hand)
        with self._locked() as entries:
            uses = (self._use(entry) for entry in entries if not entry.by_hand)
            least = min(uses, default=0.0)
            self._put(entries, dataclasses.replace(self._me, used_s=least * priority))

    @property
    def others(self) -> list[Assignment]:
        """What other studies hold now, without the server that is this one's too."""
        return self._beside(_read(self._path))

    @property
    def models(self) -> list[Assignment]:
        """What the models of other studies hold, without the server that is this one's too."""
        return self._beside(_of_models(_read(self._path)))

    @property
    def entries(self) -> list[Entry]:
        """All running studies, for people."""
        return _read(self._path)

    def claim(
        self, key: str, wish: Assignment, take: Callable[[Sequence[Assignment]], Assignment | None]
    ) -> Assignment | None:
        """Hold what `take` finds free beside the others; None where this study has to wait.

        Args:
            key: The number of the trial, or `SERVER`, which has no turns to wait for.
            wish: What would be held on an idle machine, for others to know what is waited for.
            take: From what others hold to what to hold.
        """
        with self._locked() as entries:
            taken = take(self._beside(entries))
            if taken is not None and key != SERVER and self._gives_way(entries):
                taken = None
            now = self._now()
            me = self._mine()
            if taken is None:
                waits_since = me.waits_since if me.wish else now
                me = dataclasses.replace(me, wish=wish, waits_since=waits_since, seen=now)
            else:
                claims, since = {**me.claims, key: taken}, {**me.since, key: now}
                me = dataclasses.replace(me, claims=claims, since=since, wish=None, seen=now)
            self._put(entries, me)
        return taken

    def hold(self, key: str, assignment: Assignment) -> None:
        """Hold less than was claimed, as a server does that rests."""
        with self._locked() as entries:
            me = self._mine()
            self._put(entries, dataclasses.replace(me, claims={**me.claims, key: assignment}))

    def release(self, key: str) -> None:
        """Give back a claim; what it used is counted."""
        with self._locked() as entries:
            me = self._mine()
            if key not in me.claims:
                return
            used_s = me.used_s + self._share(me.claims[key]) * (self._now() - me.since[key])
            claims = {k: claim for k, claim in me.claims.items() if k != key}
            self._put(entries, dataclasses.replace(me, claims=claims, used_s=used_s))

    def close(self) -> None:
        """Hold nothing and wait for nothing. May be called twice."""
        with self._locked() as entries:
            entries[:] = self._others(entries)
        self._me = dataclasses.replace(self._me, claims={}, since={}, wish=None)

    # Turns.

    def _gives_way(self, entries: Sequence[Entry]) -> bool:
        """Return whether another study, which has used less, is to go first."""
        me, now, held = self._mine(), self._now(), self._held(entries)
        ids = {gpu.id for gpu in self._inventory.gpus}
        before = (self._use(me), me.waits_since if me.wish else now, me.pid)
        for entry in self._others(entries):
            if entry.wish is None or now - entry.seen > _FORGOTTEN_S:
                continue
            wish = self._seen(entry, entry.wish)
            if not wish.cpus and not wish.memory_mb and ids.isdisjoint(wish.gpus):
                continue  # nothing that this study could leave to it
            if not self._is_left_by_trials(wish, entry, entries):
                continue  # servers have its room, and would hold on to it for ever
            is_first = (self._use(entry), entry.waits_since, entry.pid) < before
            is_due = now - entry.waits_since > _PATIENCE_S
            if is_first and (is_due or self._fits(wish, held)):
                return True
        return False

    def _is_left_by_trials(self, wish: Assignment, whose: Entry, entries: Sequence[Entry]) -> bool:
        """Return whether the memory of a wish is free once no trial runs, and servers hold on."""
        servers = _of_models(entry for entry in entries if entry is not whose)
        return placement.has_room(self._inventory, self._held(servers), wish)

    def _use(self, entry: Entry) -> float:
        now = self._now()
        running_s = sum(
            self._share(claim) * (now - entry.since[key])
            for key, claim in entry.claims.items()
            if key in entry.since
        )
        return (entry.used_s + running_s) / entry.priority

    def _share(self, claim: Assignment) -> float:
        gpus = len(self._inventory.gpus)
        return max(claim.cpus / self._inventory.cpus, claim.gpu_total / gpus if gpus else 0.0)

    def _fits(self, wish: Assignment, held: Sequence[Assignment]) -> bool:
        resources = Resources(parallel=len(held) + 1, cpus=wish.cpus, gpus=wish.gpu_total)
        by_gpu = {gpu.id: wish.gpu_memory_mb for gpu in self._inventory.gpus}
        need = Need(wish.memory_mb, by_gpu)
        return placement.place(resources, self._inventory, [], need=need, others=held) is not None

    # The file.

    @property
    def _path(self) -> Path:
        return self._folder / _FILE

    @contextlib.contextmanager
    def _locked(self) -> Iterator[list[Entry]]:
        """Hold the ledger; what its list of entries is at the end is written.

        A folder that was removed under a running study, as a logout may do, is made again.

        Raises:
            LocalHPOError: the folder cannot be used.
        """
        runtime.make_private(self._folder)
        with contextlib.ExitStack() as stack:
            with self._reported():
                lock = stack.enter_context((self._folder / "machine.lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            entries = _read(self._path)
            yield entries
            with self._reported():
                _write(self._path, entries)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise runtime.unusable(self._folder, error) from error

    def _mine(self) -> Entry:
        """Return this study's entry: nobody else writes it, and a file that is gone had it."""
        return dataclasses.replace(self._me, server=self._server())

    def _others(self, entries: Sequence[Entry]) -> list[Entry]:
        me = self._me
        return [one for one in entries if (one.pid, one.study) != (me.pid, me.study)]

    def _beside(self, entries: Sequence[Entry]) -> list[Assignment]:
        return self._held(self._others(entries), self._server())

    def _held(self, entries: Sequence[Entry], counted: int | None = None) -> list[Assignment]:
        """Return what studies hold: a server that several use once, one that is counted never."""
        held: list[Assignment] = []
        seen = {counted}
        for entry in entries:
            for key, claim in entry.claims.items():
                server = entry.server if key == SERVER else None
                if server is None or server not in seen:
                    held.append(self._seen(entry, claim))
                    seen.add(server)
        return held

    def _seen(self, entry: Entry, assignment: Assignment) -> Assignment:
        return self._inventory.part.seen(assignment, entry.part)

    def _put(self, entries: list[Entry], me: Entry) -> None:
        entries[:] = [*self._others(entries), me]
        self._me = me


def _of_models(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that hold a model, as if they held nothing else."""
    return [
        dataclasses.replace(entry, claims={SERVER: entry.claims[SERVER]})
        for entry in entries
        if SERVER in entry.claims
    ]


def processes() -> frozenset[int]:
    """Return the processes of the running studies and of their servers, whose claims are noted."""
    entries = _read(runtime.folder() / _FILE)
    studies = {entry.pid for entry in entries if not entry.by_hand}
    return frozenset(studies | {entry.server for entry in entries if entry.server})


def servers_of(pid: int) -> frozenset[int]:
    """Return the servers of models that the studies of a process use, whoever started them."""
    entries = _read(runtime.folder() / _FILE)
    return frozenset(one.server for one in entries if one.pid == pid and one.server)


def _read(path: Path) -> list[Entry]:
    """Return the entries of processes that live; a file that cannot be read holds none."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        entries = [_entry(row) for row in table]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [entry for entry in entries if runtime.start_of(entry.pid) == entry.started]


def _entry(row: Mapping[str, Any]) -> Entry:
    claims = {key: _assignment(claim) for key, claim in row["claims"].items()}
    wish = None if row["wish"] is None else _assignment(row["wish"])
    part = row.get("part", {})
    part = Part(**{**part, "processors": tuple(part.get("processors", ()))})
    return Entry(**{**row, "claims": claims, "wish": wish, "part": part})


def _assignment(row: Mapping[str, Any]) -> Assignment:
    return Assignment(**{**row, "gpus": tuple(row["gpus"])})


def _write(path: Path, entries: Sequence[Entry]) -> None:
    """Replace the file at once: readers need no lock."""
    new = path.with_suffix(f".{os.getpid()}")
    rows = [dataclasses.asdict(entry) for entry in entries]
    new.write_text(json.dumps(rows), encoding="utf-8")
    new.replace(path)
