"""Resources that the studies of one user share on one machine: claims on them, and fair turns.

Every running study has an entry in a file of the user's runtime folder, which is read and
written under a file lock: what its trials and its model hold, what it waits for, and how much it
has used. Whoever reads the file next drops the entries of processes that have ended (identified
by process id and start time), so a study that was killed holds nothing. Each study that uses a
shared model server claims its memory; the memory counts once.

Turns: of the waiting studies, the one that has used the least goes first. Use is the time during
which a study held its dominant share (the larger of its shares of CPUs and GPUs), divided by its
priority (dominant resource fairness, https://www.usenix.org/conference/nsdi11). A new study starts
with the use of the study that has used the least, so it cannot take the whole machine until it has
caught up. A study gives way to an earlier one that could start now, or that has waited for so long
that resources must be left free for it.

Not covered: studies of other users, other programs, several machines.
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
from localhpo.resources import placement
from localhpo.resources.placement import Assignment, Inventory, MachinePartition, MemoryNeed
from localhpo.task import Resources

_FILE = "machine.json"

MODEL_CLAIM = "server"
"""Key of the claim that covers the model; trials have their number as key."""

_PATIENCE_S = 60.0
"""Resources are left free for a study that has waited for longer, though smaller trials fit."""

_ABANDONED_S = 10.0
"""A waiting study that has not asked for longer (it was suspended) blocks no other."""

_KEYS = {
    "request": "wish",
    "waiting_since": "waits_since",
    "asked_at": "seen",
    "claimed_at": "since",
    "server_pid": "server",
    "partition": "part",
    "is_manual": "by_hand",
}
"""Field of `StudyEntry` -> its key in the file, which programs of older versions share."""


@dataclass(frozen=True, slots=True)
class StudyEntry:
    """One running study, as the file has it."""

    pid: int
    started: int
    """Start time of its process: see `runtime.process_start`."""
    study: str
    priority: float = 1.0
    used_s: float = 0.0
    """Dominant share times seconds, of claims that were released."""
    claims: Mapping[str, Assignment] = field(default_factory=dict)
    """Claims by trial number, or `MODEL_CLAIM`."""
    claimed_at: Mapping[str, float] = field(default_factory=dict)
    """Time of each claim."""
    request: Assignment | None = None
    """Resources that it waits for."""
    waiting_since: float = 0.0
    asked_at: float = 0.0
    """Time of its last request."""
    server_pid: int | None = None
    """Process of the model server that it uses."""
    partition: MachinePartition = field(default_factory=MachinePartition)
    """Part of the machine that it may use. Its claims count where partitions overlap."""
    is_manual: bool = False
    """Whether trials run outside of LocalHPO (ask and tell): its process may hold more than it
    claims."""


class ResourceBroker:
    """Claims of one study on the shared resources, from construction to `close`.

    Args:
        study: Name of the study, shown to people.
        inventory: Resources of this machine.
        priority: A study of priority 2 gets twice the turns of a study of priority 1.
        folder: Folder of the shared file; the user's runtime folder by default.
        server_pid: Returns the process of the model server, which other studies may share.
        is_manual: Whether the model alone is claimed for, and trials run outside of LocalHPO.
        now: Returns the time in seconds since the epoch.

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
        server_pid: Callable[[], int | None] = lambda: None,
        is_manual: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._inventory = inventory
        self._now = now
        self._server_pid = server_pid
        self._folder = folder or runtime.folder()
        pid = os.getpid()
        self._entry = StudyEntry(
            pid,
            runtime.process_start(pid),
            study,
            priority,
            partition=inventory.partition,
            is_manual=is_manual,
        )
        with self._locked() as entries:
            uses = (self._use(entry) for entry in entries if not entry.is_manual)
            least = min(uses, default=0.0)
            self._put(entries, dataclasses.replace(self._entry, used_s=least * priority))

    def read_other_claims(self) -> list[Assignment]:
        """Return what other studies hold, without a model server that this study shares."""
        return self._claims_beside(_read(self._path))

    def read_model_claims(self) -> list[Assignment]:
        """Return what the models of other studies hold, without a server that this one shares."""
        return self._claims_beside(_with_model_claims_only(_read(self._path)))

    def read_entries(self) -> list[StudyEntry]:
        """Return the entries of all running studies."""
        return _read(self._path)

    def claim(
        self,
        key: str,
        request: Assignment,
        allocate: Callable[[Sequence[Assignment]], Assignment | None],
    ) -> Assignment | None:
        """Claim what `allocate` finds free beside the others; None where this study has to wait.

        Args:
            key: Number of the trial, or `MODEL_CLAIM`, which waits for no turn.
            request: What would be claimed on an idle machine: tells others what is waited for.
            allocate: From what others hold to what to claim; None where there is not enough.
        """
        with self._locked() as entries:
            taken = allocate(self._claims_beside(entries))
            if taken is not None and key != MODEL_CLAIM and self._must_yield(entries):
                taken = None
            now = self._now()
            own = self._own_entry()
            if taken is None:
                waiting_since = own.waiting_since if own.request else now
                own = dataclasses.replace(
                    own, request=request, waiting_since=waiting_since, asked_at=now
                )
            else:
                own = dataclasses.replace(
                    own,
                    claims={**own.claims, key: taken},
                    claimed_at={**own.claimed_at, key: now},
                    request=None,
                    asked_at=now,
                )
            self._put(entries, own)
        return taken

    def update_claim(self, key: str, assignment: Assignment) -> None:
        """Replace a claim without asking: by less than was claimed, as for an offloaded model."""
        with self._locked() as entries:
            own = self._own_entry()
            self._put(entries, dataclasses.replace(own, claims={**own.claims, key: assignment}))

    def release(self, key: str) -> None:
        """Give back a claim, and add it to the use of this study."""
        with self._locked() as entries:
            own = self._own_entry()
            if key not in own.claims:
                return
            held_s = self._now() - own.claimed_at[key]
            used_s = own.used_s + self._dominant_share(own.claims[key]) * held_s
            claims = {k: claim for k, claim in own.claims.items() if k != key}
            self._put(entries, dataclasses.replace(own, claims=claims, used_s=used_s))

    def close(self) -> None:
        """Give back everything. May be called twice."""
        with self._locked() as entries:
            entries[:] = self._others(entries)
        self._entry = dataclasses.replace(self._entry, claims={}, claimed_at={}, request=None)

    # Turns.

    def _must_yield(self, entries: Sequence[StudyEntry]) -> bool:
        """Return whether another study, which has used less, has priority."""
        own, now, held = self._own_entry(), self._now(), self._all_claims(entries)
        ids = {gpu.id for gpu in self._inventory.gpus}
        rank = (self._use(own), own.waiting_since if own.request else now, own.pid)
        for entry in self._others(entries):
            if entry.request is None or now - entry.asked_at > _ABANDONED_S:
                continue
            request = self._overlap(entry, entry.request)
            if not request.cpus and not request.memory_mb and ids.isdisjoint(request.gpus):
                continue  # nothing that this study could leave to it
            if not self._can_trials_free(request, entry, entries):
                continue  # models hold the memory, and would hold it for ever
            is_first = (self._use(entry), entry.waiting_since, entry.pid) < rank
            is_due = now - entry.waiting_since > _PATIENCE_S
            if is_first and (is_due or self._fits(request, held)):
                return True
        return False

    def _can_trials_free(
        self, request: Assignment, requester: StudyEntry, entries: Sequence[StudyEntry]
    ) -> bool:
        """Return whether the memory would be free if all trials ended and models stayed."""
        models = _with_model_claims_only(entry for entry in entries if entry is not requester)
        return placement.fits_in_memory(self._inventory, self._all_claims(models), request)

    def _use(self, entry: StudyEntry) -> float:
        now = self._now()
        running_s = sum(
            self._dominant_share(claim) * (now - entry.claimed_at[key])
            for key, claim in entry.claims.items()
            if key in entry.claimed_at
        )
        return (entry.used_s + running_s) / entry.priority

    def _dominant_share(self, claim: Assignment) -> float:
        gpus = len(self._inventory.gpus)
        return max(claim.cpus / self._inventory.cpus, claim.gpu_total / gpus if gpus else 0.0)

    def _fits(self, request: Assignment, held: Sequence[Assignment]) -> bool:
        resources = Resources(parallel=len(held) + 1, cpus=request.cpus, gpus=request.gpu_total)
        by_gpu = {gpu.id: request.gpu_memory_mb for gpu in self._inventory.gpus}
        need = MemoryNeed(request.memory_mb, by_gpu)
        place = placement.place_trial(resources, self._inventory, [], need=need, others=held)
        return place is not None

    # The file.

    @property
    def _path(self) -> Path:
        return self._folder / _FILE

    @contextlib.contextmanager
    def _locked(self) -> Iterator[list[StudyEntry]]:
        """Lock the file, give its entries to the block, and write what the block makes of them.

        A folder that was removed under a running study, as a logout may do, is made again.

        Raises:
            LocalHPOError: the folder cannot be used.
        """
        runtime.make_private(self._folder)
        with contextlib.ExitStack() as stack:
            with self._file_errors():
                lock = stack.enter_context((self._folder / "machine.lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            entries = _read(self._path)
            yield entries
            with self._file_errors():
                _write(self._path, entries)

    @contextlib.contextmanager
    def _file_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise runtime.unusable_folder_error(self._folder, error) from error

    def _own_entry(self) -> StudyEntry:
        """Return this study's entry, which no other study writes; the file may have vanished."""
        return dataclasses.replace(self._entry, server_pid=self._server_pid())

    def _others(self, entries: Sequence[StudyEntry]) -> list[StudyEntry]:
        own = self._entry
        return [entry for entry in entries if (entry.pid, entry.study) != (own.pid, own.study)]

    def _claims_beside(self, entries: Sequence[StudyEntry]) -> list[Assignment]:
        return self._all_claims(self._others(entries), self._server_pid())

    def _all_claims(
        self, entries: Sequence[StudyEntry], counted_pid: int | None = None
    ) -> list[Assignment]:
        """Return what studies hold: a shared model server once, that of `counted_pid` never."""
        held: list[Assignment] = []
        seen_pids = {counted_pid}
        for entry in entries:
            for key, claim in entry.claims.items():
                server_pid = entry.server_pid if key == MODEL_CLAIM else None
                if server_pid is None or server_pid not in seen_pids:
                    held.append(self._overlap(entry, claim))
                    seen_pids.add(server_pid)
        return held

    def _overlap(self, entry: StudyEntry, assignment: Assignment) -> Assignment:
        return self._inventory.partition.overlap(assignment, entry.partition)

    def _put(self, entries: list[StudyEntry], own: StudyEntry) -> None:
        entries[:] = [*self._others(entries), own]
        self._entry = own


def _with_model_claims_only(entries: Iterable[StudyEntry]) -> list[StudyEntry]:
    """Return the entries that claim memory for a model, without their other claims."""
    return [
        dataclasses.replace(entry, claims={MODEL_CLAIM: entry.claims[MODEL_CLAIM]})
        for entry in entries
        if MODEL_CLAIM in entry.claims
    ]


def read_pids() -> frozenset[int]:
    """Return the processes of running studies and of their model servers, as far as claimed for."""
    entries = _read(runtime.folder() / _FILE)
    studies = {entry.pid for entry in entries if not entry.is_manual}
    return frozenset(studies | {entry.server_pid for entry in entries if entry.server_pid})


def read_server_pids(pid: int) -> frozenset[int]:
    """Return the model servers that the studies of a process use, whoever started them."""
    entries = _read(runtime.folder() / _FILE)
    return frozenset(e.server_pid for e in entries if e.pid == pid and e.server_pid)


def _read(path: Path) -> list[StudyEntry]:
    """Return the entries of living processes; a file that cannot be read has none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        entries = [_parse_entry(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [entry for entry in entries if runtime.process_start(entry.pid) == entry.started]


def _parse_entry(row: Mapping[str, Any]) -> StudyEntry:
    fields = {name: row[key] for name, key in _KEYS.items() if key in row}
    fields |= {key: value for key, value in row.items() if key not in _KEYS.values()}
    fields["claims"] = {key: _parse_assignment(claim) for key, claim in row["claims"].items()}
    fields["request"] = None if row["wish"] is None else _parse_assignment(row["wish"])
    partition = row.get("part", {})
    processors = tuple(partition.get("processors", ()))
    fields["partition"] = MachinePartition(**{**partition, "processors": processors})
    return StudyEntry(**fields)


def _parse_assignment(row: Mapping[str, Any]) -> Assignment:
    return Assignment(**{**row, "gpus": tuple(row["gpus"])})


def _write(path: Path, entries: Sequence[StudyEntry]) -> None:
    """Replace the file in one step, so that readers need no lock."""
    new = path.with_suffix(f".{os.getpid()}")
    rows = [
        {_KEYS.get(name, name): value for name, value in dataclasses.asdict(entry).items()}
        for entry in entries
    ]
    new.write_text(json.dumps(rows), encoding="utf-8")
    new.replace(path)
