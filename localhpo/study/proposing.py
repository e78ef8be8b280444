"""The Creator of a study: opened when it is first needed, with room for its model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from localhpo.creator import Creator
from localhpo.llm.hosting import Host, Wanted
from localhpo.scheduler.devices import find_inventory
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.store import Store
from localhpo.study.pasts import open_remembering
from localhpo.study.starting import Room
from localhpo.task import Task

if TYPE_CHECKING:
    from localhpo.llm.vllm import ManagedServer


class Proposing:
    """Closed with the study; it can be opened again.

    A run of the study shares the machine out itself. Where trials are run by hand nobody does: the
    model then has an entry of its own in the ledger, and what the trials take is foreign to other
    studies.

    Args:
        store: Holds what the Creator may remember.
        key: Name of the study.
        task: Names the Creator.
        given: One to be used in its place, which whoever gave it closes.
        say: Tells what is waited for, where trials are run by hand.
    """

    def __init__(
        self, store: Store, key: str, task: Task, given: Creator | None, say: Callable[[str], None]
    ) -> None:
        self._store, self._key, self._task = store, key, task
        self._given = given
        self._say = say
        self._opened: Creator | None = None
        self._part: tuple[Machine, Room] | None = None
        self.took_s = 0.0
        """How long its model was waited for when it was opened: for room, and to be loaded."""

    def creator(self, host: Host | None = None) -> Creator:
        """Return it, opened.

        Args:
            host: Of a run, asked for room before a model is loaded.

        Raises:
            InputError, MissingExtraError, ModelError: as `open_creator`.
        """
        if self._given is not None:
            return self._given
        if self._opened is None:
            asked, began = host or Host(self._find_room, self._say), time.monotonic()
            try:
                self._opened = open_remembering(self._store, self._key, self._task, host=asked)
            finally:
                if host is None:
                    self._settle()
            has_model = hasattr(self._opened, "server")
            self.took_s = time.monotonic() - began if has_model else 0.0
        return self._opened

    def server_pid(self) -> int | None:
        """Return the process of the server that the model runs in now; None without one."""
        server: ManagedServer | None = getattr(self._given or self._opened, "server", None)
        return None if server is None else server.pid

    def close(self) -> None:
        """Free the model, and then what was claimed for it. May be called twice."""
        opened, self._opened = self._opened, None
        try:
            if opened is not None:
                opened.close()
        finally:
            self._leave()

    # By hand.

    def _find_room(self, wanted: Wanted) -> Sequence[str] | None:
        return self._entered()[1].find(wanted)

    def _entered(self) -> tuple[Machine, Room]:
        """Return this study's part in the ledger, and what finds room there."""
        if self._part is None:
            inventory, priority = find_inventory(), self._task.resources.priority
            machine = Machine(
                self._key, inventory, priority=priority, server=self.server_pid, by_hand=True
            )
            self._part = machine, Room(inventory, machine)
        return self._part

    def _settle(self) -> None:
        """Count a server, whoever started it; a model in this process is as foreign as trials."""
        if (pid := self.server_pid()) is None:
            self._leave()
            return
        machine, room = self._entered()
        if claim := room.claimed(pid):
            machine.hold(SERVER, claim)

    def _leave(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part[0].close()
