"""The Creator of a study, opened when it is first needed, with memory for its model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from localhpo.creator import CREATORS, Creator, History
from localhpo.llm.placement import MemoryRequest, ModelPlacer
from localhpo.llm.protocol import Backend
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.inventory import find_inventory
from localhpo.store import Store
from localhpo.study.model_placement import ModelReservation
from localhpo.study.past_studies import open_with_past_studies
from localhpo.task import Task
from localhpo.trial import Proposal


class PluginCreator:
    """The Creator of a plug-in, whose exceptions become errors that name the plug-in.

    Args:
        plugin: Name of the plug-in.
        creator: What its factory made.
    """

    def __init__(self, plugin: str, creator: Creator) -> None:
        """Check that the Creator has all parts of the protocol.

        Raises:
            PluginError: it lacks one. All methods raise it where the Creator fails.
        """
        with CREATORS.naming_plugin(plugin):
            _ = creator.name, creator.backend, creator.propose, creator.close
        self._plugin, self._creator = plugin, creator

    @property
    def name(self) -> str:
        """Name of the Creator."""
        return self._creator.name

    @property
    def backend(self) -> Backend | None:
        """Backend of the Creator."""
        return self._creator.backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Ask the Creator."""
        with CREATORS.naming_plugin(self._plugin):
            return self._creator.propose(history, n)

    def close(self) -> None:
        """Close the Creator."""
        with CREATORS.naming_plugin(self._plugin):
            self._creator.close()


class LazyCreator:
    """Opens the Creator of a study on first use. Closed with the study; it can be opened again.

    While a study runs, its loop reserves memory. For trials that are run by hand (ask and tell)
    this class reserves it: only for the model, since the needs of the trials are not known.

    Args:
        store: Store with past studies.
        key: Name of the study.
        task: Task whose settings name the Creator.
        given: Creator to be used instead; its owner closes it.
        notify: Shows messages on waiting to the user, where trials are run by hand.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        task: Task,
        given: Creator | None,
        notify: Callable[[str], None],
    ) -> None:
        self._store, self._key, self._task = store, key, task
        self._given = given
        self._notify = notify
        self._opened: Creator | None = None
        self._joined: tuple[ResourceBroker, ModelReservation] | None = None
        self.loading_s = 0.0
        """Seconds until its model was loaded, including the wait for memory; 0 without a model."""

    def creator(self, placer: ModelPlacer | None = None) -> Creator:
        """Return the Creator, opened.

        Args:
            placer: Placer of the run, which is asked for memory before a model is loaded.

        Raises:
            InputError, PluginError, MissingExtraError, ModelError: as `open_creator`.
        """
        if self._given is not None:
            return self._given
        if self._opened is None:
            asked, began = placer or ModelPlacer(self._reserve, self._notify), time.monotonic()
            try:
                opened = open_with_past_studies(self._store, self._key, self._task, placer=asked)
                name = self._task.creator.name
                is_built_in = name in CREATORS.built_in
                self._opened = opened if is_built_in else PluginCreator(name, opened)
            finally:
                if placer is None:
                    self._claim_server()
            if self._opened.backend is not None:  # otherwise there was no model to wait for
                self.loading_s = time.monotonic() - began
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
            self._leave_broker()

    def _reserve(self, request: MemoryRequest) -> Sequence[str] | None:
        return self._join_broker()[1].reserve(request)

    def _join_broker(self) -> tuple[ResourceBroker, ModelReservation]:
        """Return the broker that this study joined, and its reservation there."""
        if self._joined is None:
            inventory, priority = find_inventory(), self._task.resources.priority
            broker = ResourceBroker(
                self._key, inventory, priority=priority, server_pid=self.server_pid, is_manual=True
            )
            self._joined = broker, ModelReservation(inventory, broker)
        return self._joined

    def _claim_server(self) -> None:
        """Claim the memory of the model's server, whoever started it."""
        if (pid := self.server_pid()) is None:
            self._leave_broker()
            return
        broker, reservation = self._join_broker()
        if claim := reservation.find_claim(pid):
            broker.update_claim(MODEL_CLAIM, claim)

    def _leave_broker(self) -> None:
        joined, self._joined = self._joined, None
        if joined is not None:
            joined[0].close()
