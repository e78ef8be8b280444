"""A vLLM server for a model folder: start, sharing between processes, sleep and end.

Guarantees:

- it listens on 127.0.0.1 only, and checks a random key, which no command line shows, on every path
  (see `localhpo.llm.vllm.auth_middleware`);
- a second process that needs the same model with the same settings uses the same server (it
  "adopts" it), after the server has proved that it accepts its key and no other, and serves the
  model;
- it ends with the last process that uses it, whichever has started it, even after crashes;
- a server that several processes use is not put to sleep, and stopping it only ends this process's
  use; a process waits for a sleeping server until its user wakes it, then adopts it;
- it starts when the placer has memory for it, and waits for that as long as it takes;
- a start has a time limit, and a failed one reports the error in its log.

Limitation: a server ends with its supervisor, even during a request. Its users notice that it does
not run, and may start another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from localhpo import runtime
from localhpo.errors import BackendError, MissingExtraError
from localhpo.llm.models import description, weights
from localhpo.llm.models import registry as model_registry
from localhpo.llm.placement import NO_MEMORY, MemoryRequest, ModelPlacer
from localhpo.llm.protocol import Model
from localhpo.llm.servers.http_client import ServerClient
from localhpo.llm.vllm import builds, server_registry
from localhpo.llm.vllm.lease import Lease
from localhpo.llm.vllm.memory import WORK_BYTES
from localhpo.llm.vllm.process import find_end_reason
from localhpo.llm.vllm.server_registry import ServerSlot
from localhpo.llm.vllm.session import POLL_S, ServerSession, is_genuine
from localhpo.llm.vllm.settings import (
    CONTEXT_TOKENS,
    START_S,
    Settings,
    server_command,
    server_environment,
)

_KV_CACHE = "--kv-cache-memory-bytes"

_ASLEEP = "another study has put it to sleep"
_STARTS = "another study is starting it"
_ENDS = "it is shutting down"
"""Why a running server cannot be used now."""


class ManagedServer:
    """A vLLM server of one model. Not thread-safe, except that requests may run beside other calls.

    Attributes:
        model: The model.
        folder: Folder of the model.
        settings: Settings of the server.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings | None = None,
        *,
        runtime_folder: Path | None = None,
        start_s: float = START_S,
        on_cpu: bool | None = None,
    ) -> None:
        """Check the folder; `start` starts the server.

        Args:
            folder: A model folder in Hugging Face layout with safetensors weights.
            settings: Settings of the server; the defaults suit a small model.
            runtime_folder: Registry of running servers; `runtime.folder()` by default.
            start_s: Time limit of a start, in seconds.
            on_cpu: Whether the installed vLLM is the build for CPUs; detected by default.

        Raises:
            MissingExtraError: vLLM is not installed.
            CardError: the folder differs from its card.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError(
                "vllm", "a server of vLLM", builds.find_extra(), hint=builds.install_hint()
            )
        card = model_registry.read_verified_card(folder)
        self.settings = settings or Settings()
        self.folder = folder
        self.on_cpu = builds.is_for_cpus() if on_cpu is None else on_cpu
        length = (
            card.context_length if card else _context_length(description.read_text_config(folder))
        )
        wanted = self.settings.context_tokens or min(length, CONTEXT_TOKENS)
        # Batching changes rounding, so an answer depends on the others in its batch.
        self.model: Model = description.describe_model(folder, card, wanted, deterministic=False)
        self.name = f"{self.model.name}@{self.model.digest[:12]}"
        """Name of the model in the server."""
        self._runtime_folder = runtime_folder
        self._start_s = start_s
        self._session: ServerSession | None = None
        self.gpus: tuple[str, ...] = ()
        """Devices that the placer gave it: not part of its identity, so that others adopt it."""
        self._level: int | None = None

    @property
    def running(self) -> bool:
        """Whether it was started or adopted, and its process exists."""
        return self.pid is not None

    @property
    def shared(self) -> bool:
        """Whether other processes use it too; then it must not be put to sleep."""
        session = self._session
        return session is not None and session.lease.shared

    @property
    def pid(self) -> int | None:
        """Process id of its supervisor; None while it does not run."""
        session = self._session  # another thread may end the session
        return session.record.pid if session and session.record.alive else None

    @property
    def weight_bytes(self) -> int:
        """Size of the weights that it loads."""
        return weights.size_bytes(self.folder)

    @property
    def need_bytes(self) -> int:
        """Memory that it needs on each device, or in host memory: weights, KV cache, activations.

        With `Settings.gpu_share` and without a KV cache size it takes that share instead.
        """
        argv = self._command(port=0)
        kv = int(argv[argv.index(_KV_CACHE) + 1]) if _KV_CACHE in argv else 0
        return self.weight_bytes // self.settings.device_count + kv + WORK_BYTES

    @property
    def memory_request(self) -> MemoryRequest:
        """Memory that it asks the placer for."""
        chosen = self.settings
        return MemoryRequest(
            self.need_bytes, self.on_cpu, chosen.gpu_share or 0.0, chosen.gpus, chosen.gpu_count
        )

    @property
    def can_sleep(self) -> bool:
        """Whether it can free device memory without ending. Never on a CPU: stop it there."""
        return self.settings.can_sleep and not self.on_cpu

    @property
    def sleeping(self) -> bool:
        """Whether it sleeps; it answers nothing then.

        Raises:
            BackendError: it does not answer.
        """
        if not (self.can_sleep and self.running):
            return False
        return bool(self.http.get("/is_sleeping")["is_sleeping"])

    @property
    def http(self) -> ServerClient:
        """HTTP client of the server.

        Raises:
            BackendError: it was not started.
        """
        return self._open_session.http

    @property
    def adapter_folder(self) -> Path:
        """Folder beside its log for the adapters that it loads; exists while it runs."""
        return self._open_session.slot.folder / "adapters"

    def start(self, placer: ModelPlacer | None = None) -> None:
        """Start the server, or adopt a running one; return when it answers.

        Blocks for a minute with a small model, for several with a large one.

        Args:
            placer: Asked for memory before a start, until there is enough. Meanwhile a server that
                another study has put to sleep is waited for too; after the time limit of a start,
                another one is started. None if the memory is reserved already.

        Raises:
            BackendError: it did not start, with the reason, or not in time.
        """
        if self.running:
            return
        self._leave()
        deadline = time.monotonic() + self._start_s
        ignored = {_ASLEEP} if placer is None else set()
        placer, notified = placer or ModelPlacer(), ""
        while why := self._adopt_or_start(placer, ignored):
            if why != notified:
                placer.notify(f"waiting for the server of {self.name}: {why}")
            notified = why
            time.sleep(POLL_S)
            if time.monotonic() > deadline:
                ignored |= {_ASLEEP, _STARTS, _ENDS}

    def _adopt_or_start(self, placer: ModelPlacer, ignored: Collection[str]) -> str:
        """Adopt or start a server; return why neither is possible now, or "" if it is done.

        Args:
            placer: Asked for memory.
            ignored: Reasons for which a server is not waited for.

        Raises:
            BackendError: it did not start, or no slot is left.
        """
        for slot in server_registry.list_slots(self._fingerprint(), self._runtime_folder):
            held = slot.take()
            if held is not None:
                if not self._reserve_memory(placer, held):
                    return NO_MEMORY
                self._session = self._launch(slot, held)
            elif (why := self._adopt(slot)) and why not in ignored:
                return why
            if self._session is not None:
                return ""
        raise BackendError(
            f"{server_registry.SLOTS} servers of {self.name} are running, and none can be used",
            hint=f"end them; they are listed in {self._runtime_folder or runtime.folder()}",
        )

    def stop(self) -> None:
        """Stop using it; it ends before this returns unless others use it. May be called twice."""
        self._leave()

    def sleep(self, level: int = 1) -> None:
        """Free its GPU memory, after it has answered all requests.

        The caller should measure the memory: a server may report success and free nothing.

        Args:
            level: 1 keeps the weights in host memory, 2 reads them again on wake-up.

        Raises:
            BackendError: it cannot sleep, others use it, or it does not answer.
        """
        if level not in (1, 2):
            raise BackendError(f"the level of sleep must be 1 or 2, got {level!r}")
        if not self.can_sleep:
            why = (
                "on a CPU vLLM frees nothing"
                if self.on_cpu
                else "it was started without sleep mode"
            )
            raise BackendError(f"the model's server cannot sleep: {why}", hint="stop it instead")
        if not self._open_session.lease.make_exclusive():
            raise BackendError("the model's server cannot sleep: another study uses it")
        self._level = level
        try:
            self.http.send("/sleep", level=str(level), mode="wait")
            if not self.sleeping:
                raise BackendError("the model's server did not go to sleep")
        except BackendError:
            if not self._sleeps():  # else it was only slow, and sleeps now
                self._open_session.lease.make_shared()
            raise

    def wake(self) -> None:
        """Wake it up. Does nothing if it does not sleep.

        Raises:
            BackendError: it does not wake up.
        """
        if not self.sleeping:
            return
        if self._level == 1:
            self.http.send("/wake_up")
        else:
            # https://docs.vllm.ai/en/latest/features/sleep_mode.html. Also if the
            # level is unknown: reading the weights again costs only time.
            self.http.send("/wake_up", tags="weights")
            self.http.send("/collective_rpc", {"method": "reload_weights"})
            self.http.send("/wake_up", tags="kv_cache")
        self._level = None
        if self.sleeping:
            raise BackendError("the model's server does not wake up")
        self._open_session.lease.make_shared()

    def has_ended(self, within_s: float) -> bool:
        """Wait for its end; return whether it came."""
        deadline = time.monotonic() + within_s
        while self.running and time.monotonic() < deadline:
            time.sleep(POLL_S / 4)
        return not self.running

    def has_failed(self, within_s: float) -> bool:
        """Return whether it has ended, or is about to because its engine is dead; wait for its end.

        Returns at once if it is healthy.
        """
        if self.running and self.http.is_healthy("/health"):
            return False
        return self.has_ended(within_s)

    def find_end_reason(self) -> str:
        """Return why it ended, by its log."""
        return find_end_reason(self._open_session.slot.folder)

    def _sleeps(self) -> bool:
        """Return whether it sleeps; False if it does not answer."""
        with contextlib.suppress(BackendError):
            return self.sleeping
        return False

    def _reserve_memory(self, placer: ModelPlacer, held: int) -> bool:
        """Ask the placer for memory; without it, release the lock of the slot."""
        gpus = None
        try:
            gpus = placer.reserve(self.memory_request)
        finally:
            if gpus is None:
                os.close(held)
        self.gpus = tuple(gpus or self.gpus)
        return gpus is not None

    def _adopt(self, slot: ServerSlot) -> str:
        """Try to adopt the server of a slot; return why that may be possible only later."""
        record = slot.read()
        lease = Lease.take(slot.folder)
        if lease is None:
            return _ASLEEP if record is not None and is_genuine(record, self.name) else _ENDS
        if record is None:
            lease.close()
            return _STARTS
        self._session = ServerSession.adopt(slot, lease, record, self.name)
        return "" if self._session or record.alive else _ENDS

    def _launch(self, slot: ServerSlot, held: int) -> ServerSession | None:
        return ServerSession.start(
            slot,
            held,
            name=self.name,
            argv=self._command,
            environment=lambda key: server_environment(
                self._placed_settings, key=key, on_cpu=self.on_cpu
            ),
            deadline=time.monotonic() + self._start_s,
        )

    def _command(self, port: int) -> list[str]:
        return server_command(
            self._placed_settings,
            self.folder,
            context_tokens=self.model.context_length,
            name=self.name,
            port=port,
            on_cpu=self.on_cpu,
        )

    @property
    def _placed_settings(self) -> Settings:
        """The settings with the devices from the placer."""
        return dataclasses.replace(self.settings, gpus=self.gpus or self.settings.gpus)

    @property
    def _open_session(self) -> ServerSession:
        """The session of this process with the server.

        Raises:
            BackendError: it was not started.
        """
        if self._session is None:
            raise BackendError("the model's server is not running", hint="start it first")
        return self._session

    def _leave(self) -> None:
        session, self._session, self._level = self._session, None, None
        if session is not None:
            session.leave()

    def _fingerprint(self) -> str:
        """Return the fingerprint of model and settings, by which servers are shared."""
        what = [self.model.digest, self.model.context_length, dataclasses.asdict(self.settings)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _context_length(config: Mapping[str, Any]) -> int:
    length = config.get("max_position_embeddings")
    return length if isinstance(length, int) else CONTEXT_TOKENS
