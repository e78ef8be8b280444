"""The Creator of a study: opened when it is first needed, with room for its model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from localhpo.creator import Creator
from localhpo.llm.placement import MemoryRequest, ModelPlacer
from localhpo.scheduler.devices import find_inventory
from localhpo.scheduler.resource_broker import MODEL_CLAIM, ResourceBroker
from localhpo.store import Store
from localhpo.study.past_studies import open_remembering
from localhpo.study.startup import ModelReservation
from localhpo.task import Task

if TYPE_CHECKING:
    pass


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
        self._part: tuple[ResourceBroker, ModelReservation] | None = None
        self.took_s = 0.0
        """How long its model was waited for when it was opened: for room, and to be loaded."""

    def creator(self, placer: ModelPlacer | None = None) -> Creator:
        """Return it, opened.

        Args:
            placer: Of a run, asked for memory before a model is loaded.

        Raises:
            InputError, MissingExtraError, ModelError: as `open_creator`.
        """
        if self._given is not None:
            return self._given
        if self._opened is None:
            asked, began = placer or ModelPlacer(self._reserve, self._say), time.monotonic()
            try:
                self._opened = open_remembering(self._store, self._key, self._task, placer=asked)
            finally:
                if placer is None:
                    self._settle()
            if self._opened.backend is not None:  # otherwise there was no model to wait for
                self.took_s = time.monotonic() - began
        return self._opened

    def server_pid(self) -> int | None:
        """Return the process of the server that the model runs in now; None without one."""
        creator = self._given or self._opened
        backend = None if creator is None else creator.backend
        server = None if backend is None else backend.server
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

    def _reserve(self, request: MemoryRequest) -> Sequence[str] | None:
        return self._entered()[1].reserve(request)

    def _entered(self) -> tuple[ResourceBroker, ModelReservation]:
        """Return this study's part in the ledger, and what finds room there."""
        if self._part is None:
            inventory, priority = find_inventory(), self._task.resources.priority
            broker = ResourceBroker(
                self._key, inventory, priority=priority, server_pid=self.server_pid, is_manual=True
            )
            self._part = broker, ModelReservation(inventory, broker)
        return self._part

    def _settle(self) -> None:
        """Count a server, whoever started it; a model in this process is as foreign as trials."""
        if (pid := self.server_pid()) is None:
            self._leave()
            return
        broker, reservation = self._entered()
        if claim := reservation.find_claim(pid):
            broker.update_claim(MODEL_CLAIM, claim)

    def _leave(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part[0].close()
