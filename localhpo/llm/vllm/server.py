"""One vLLM server for one model folder: started, found again, put to sleep, ended.

What is covered:

- it listens on 127.0.0.1 alone, behind a random key that no command line shows, and that it asks
  for on every path (see `localhpo.llm.vllm.auth_middleware`);
- a second process that wants the same model under the same settings uses it too (it is
  "adopted"), once it has shown that it knows the key and refuses others, and serves that model;
- it ends with the last process that uses it, whoever started it and however sudden their ends;
- one that others use too is not put to sleep, and stopping it is to let go of it; one that sleeps
  is waited for, until whoever has it to himself wakes it, and then adopted;
- it is started where the placer has memory for it, and waits for that as long as it takes;
- a start is bounded, and a failed one says why, in the words of its log.

What is not covered:

- it ends with its supervisor, in the middle of a request too. Whoever uses it sees that it no
  longer runs, and may start one.
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
from localhpo.llm import model_registry
from localhpo.llm.folder import description, weights
from localhpo.llm.http_client import ServerClient
from localhpo.llm.placement import NO_MEMORY, MemoryRequest, ModelPlacer
from localhpo.llm.protocol import Model
from localhpo.llm.server_memory import WORK_BYTES
from localhpo.llm.vllm import builds, server_registry
from localhpo.llm.vllm.lease import Lease
from localhpo.llm.vllm.process import why_ended
from localhpo.llm.vllm.server_registry import ServerSlot
from localhpo.llm.vllm.session import POLL_S, ServerSession, proves
from localhpo.llm.vllm.settings import (
    CONTEXT_TOKENS,
    START_S,
    Settings,
    command,
    environment,
)

_KV_CACHE = "--kv-cache-memory-bytes"

_ASLEEP = "another study lets it sleep"
_STARTS = "another study starts it"
_ENDS = "it ends"
"""Why a server that has a place cannot be used now."""


class ManagedServer:
    """A server of one model. Not for several threads at once, but for `generate` beside them.

    Attributes:
        model: What it serves.
        folder: Where the model lies.
        settings: How it is served.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings | None = None,
        *,
        place: Path | None = None,
        start_s: float = START_S,
        on_cpu: bool | None = None,
    ) -> None:
        """Check the folder; `start` starts the server.

        Args:
            folder: Of the model, in Hugging Face layout, weights as safetensors.
            settings: How it is served; the defaults suit a small model.
            place: Where running servers are noted, `runtime.folder()` by default.
            start_s: After which a start has failed.
            on_cpu: Whether the vLLM that is installed runs on CPUs; found out by default.

        Raises:
            MissingExtraError: vLLM is not installed.
            CardError: the folder is not what its card says.
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
        # Batches change rounding, so an answer depends on what is drawn beside it.
        self.model: Model = description.describe_model(folder, card, wanted, deterministic=False)
        self.name = f"{self.model.name}@{self.model.digest[:12]}"
        """What the server calls the model."""
        self._place = place
        self._start_s = start_s
        self._use: ServerSession | None = None
        self.gpus: tuple[str, ...] = ()
        """Devices that the placer gave it: not part of its identity, so that others adopt it."""
        self._level: int | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, or adopted, and its process is there."""
        return self.pid is not None

    @property
    def shared(self) -> bool:
        """Whether others use it too: it is then not this one's to put to rest."""
        use = self._use
        return use is not None and use.lease.shared

    @property
    def pid(self) -> int | None:
        """The process below which all of the server hangs, while it runs."""
        use = self._use  # another thread may let go of it
        return use.record.pid if use and use.record.alive else None

    @property
    def weight_bytes(self) -> int:
        """Of the weights that it loads."""
        return weights.size_bytes(self.folder)

    @property
    def need_bytes(self) -> int:
        """What it asks for of each of its devices, or of the host: weights, KV cache, and to work.

        With `Settings.gpu_share` and no KV cache declared it takes that share, whatever this says.
        """
        argv = self._command(port=0)
        kv = int(argv[argv.index(_KV_CACHE) + 1]) if _KV_CACHE in argv else 0
        return self.weight_bytes // self.settings.devices + kv + WORK_BYTES

    @property
    def memory_request(self) -> MemoryRequest:
        """What it asks the placer for."""
        chosen = self.settings
        return MemoryRequest(
            self.need_bytes, self.on_cpu, chosen.gpu_share or 0.0, chosen.gpus, chosen.split
        )

    @property
    def can_sleep(self) -> bool:
        """Whether it can give memory back without ending. Never on a CPU: stop it there."""
        return self.settings.can_sleep and not self.on_cpu

    @property
    def sleeping(self) -> bool:
        """Whether it sleeps; it answers nothing then.

        Raises:
            BackendError: it does not say.
        """
        if not (self.can_sleep and self.running):
            return False
        return bool(self.http.get("/is_sleeping")["is_sleeping"])

    @property
    def http(self) -> ServerClient:
        """The way to ask it.

        Raises:
            BackendError: it was not started.
        """
        return self._used.http

    @property
    def shelf(self) -> Path:
        """A folder beside its log, for files that it is to read. There while it runs."""
        return self._used.slot.folder / "shelf"

    def start(self, placer: ModelPlacer | None = None) -> None:
        """Start it, or adopt one that serves the same; return when it answers.

        Blocks for a minute with a small model, for several with a large one.

        Args:
            placer: RequestInfo for memory before a start, until it has enough; until then one that
                another study lets sleep is waited for too, and only when a start would have taken
                too long is another started. None for who has claimed the room before.

        Raises:
            BackendError: it did not start, with the reason, or not in time.
        """
        if self.running:
            return
        self._forget()
        deadline = time.monotonic() + self._start_s
        passed_over = {_ASLEEP} if placer is None else set()
        placer, said = placer or ModelPlacer(), ""
        while why := self._settle(placer, passed_over):
            if why != said:
                placer.notify(f"waiting for the server of {self.name}: {why}")
            said = why
            time.sleep(POLL_S)
            if time.monotonic() > deadline:
                passed_over |= {_ASLEEP, _STARTS, _ENDS}

    def _settle(self, placer: ModelPlacer, passed_over: Collection[str]) -> str:
        """Adopt a server, or start one; return why neither can be now, nothing once it is done.

        Args:
            placer: RequestInfo for memory.
            passed_over: Servers that are so are not waited for.

        Raises:
            BackendError: it did not start, or there is no place left.
        """
        for slot in server_registry.slots(self._fingerprint(), self._place):
            held = slot.take()
            if held is not None:
                if not self._has_memory(placer, held):
                    return NO_MEMORY
                self._use = self._launch(slot, held)
            elif (why := self._adopt(slot)) and why not in passed_over:
                return why
            if self._use is not None:
                return ""
        raise BackendError(
            f"{server_registry.SLOTS} servers of {self.name} hold their places, and none can be used",
            hint=f"end them; they are noted in {self._place or runtime.folder()}",
        )

    def stop(self) -> None:
        """Let go of it; it ends before this returns, unless others use it. May be called twice."""
        self._forget()

    def sleep(self, level: int = 1) -> None:
        """Have it give its memory on the GPU back, once it has answered what it was asked.

        Whether it did is to be measured: a server can say so and give back nothing.

        Args:
            level: 1 keeps the weights in the host's memory, 2 reads them again on waking.

        Raises:
            BackendError: it cannot sleep, others use it, or it does not answer.
        """
        if level not in (1, 2):
            raise BackendError(f"the level of sleep must be 1 or 2, got {level!r}")
        if not self.can_sleep:
            why = "on a CPU vLLM gives nothing back" if self.on_cpu else "it was started without"
            raise BackendError(f"the model's server cannot sleep: {why}", hint="stop it instead")
        if not self._used.lease.make_exclusive():
            raise BackendError("another study uses the model's server: it cannot sleep")
        self._level = level
        try:
            self.http.tell("/sleep", level=str(level), mode="wait")
            if not self.sleeping:
                raise BackendError("the model's server was put to sleep, and says that it is awake")
        except BackendError:
            if not self._sleeps():  # else it was only slow: nobody could use it
                self._used.lease.make_shared()
            raise

    def wake(self) -> None:
        """Have it answer again. Does nothing where it does not sleep.

        Raises:
            BackendError: it does not wake.
        """
        if not self.sleeping:
            return
        if self._level == 1:
            self.http.tell("/wake_up")
        else:
            # https://docs.vllm.ai/en/latest/features/sleep_mode.html; so too where somebody
            # else put it to sleep: to read weights that are there costs only time.
            self.http.tell("/wake_up", tags="weights")
            self.http.tell("/collective_rpc", {"method": "reload_weights"})
            self.http.tell("/wake_up", tags="kv_cache")
        self._level = None
        if self.sleeping:
            raise BackendError("the model's server does not wake up")
        self._used.lease.make_shared()

    def has_ended(self, within_s: float) -> bool:
        """Wait for its end, and say whether it came; at once where it does not run."""
        deadline = time.monotonic() + within_s
        while self.running and time.monotonic() < deadline:
            time.sleep(POLL_S / 4)
        return not self.running

    def has_failed(self, within_s: float) -> bool:
        """Whether it has ended, or is about to, as when its engine is dead: then wait for its end.

        An error that it has told may have another reason: then it is well, and this returns at
        once.
        """
        if self.running and self.http.answers("/health"):
            return False
        return self.has_ended(within_s)

    def why_ended(self) -> str:
        """Say why it ended by itself, in the words of its log."""
        return why_ended(self._used.slot.folder)

    def _sleeps(self) -> bool:
        """Whether it sleeps, as far as it says so."""
        with contextlib.suppress(BackendError):
            return self.sleeping
        return False

    def _has_memory(self, placer: ModelPlacer, held: int) -> bool:
        """Ask the placer for memory; without, let go of the place that `held` holds."""
        gpus = None
        try:
            gpus = placer.reserve(self.memory_request)
        finally:
            if gpus is None:
                os.close(held)
        self.gpus = tuple(gpus or self.gpus)
        return gpus is not None

    def _adopt(self, slot: ServerSlot) -> str:
        """Use the server that has a place; return what it is waited for, where that may help."""
        record = slot.read()
        lease = Lease.take(slot.folder)
        if lease is None:
            return _ASLEEP if record is not None and proves(record, self.name) else _ENDS
        if record is None:
            lease.close()
            return _STARTS
        self._use = ServerSession.adopt(slot, lease, record, self.name)
        return "" if self._use or record.alive else _ENDS

    def _launch(self, slot: ServerSlot, held: int) -> ServerSession | None:
        return ServerSession.start(
            slot,
            held,
            name=self.name,
            argv=self._command,
            environment=lambda key: environment(self._placed, key=key, on_cpu=self.on_cpu),
            deadline=time.monotonic() + self._start_s,
        )

    def _command(self, port: int) -> list[str]:
        return command(
            self._placed,
            self.folder,
            context_tokens=self.model.context_length,
            name=self.name,
            port=port,
            on_cpu=self.on_cpu,
        )

    @property
    def _placed(self) -> Settings:
        """The settings, with the devices that the placer gave."""
        return dataclasses.replace(self.settings, gpus=self.gpus or self.settings.gpus)

    @property
    def _used(self) -> ServerSession:
        """This process's use of it.

        Raises:
            BackendError: it was not started.
        """
        if self._use is None:
            raise BackendError("the model's server does not run", hint="start it first")
        return self._use

    def _forget(self) -> None:
        use, self._use, self._level = self._use, None, None
        if use is not None:
            use.leave()

    def _fingerprint(self) -> str:
        """Return what two servers share that can stand in for each other."""
        what = [self.model.digest, self.model.context_length, dataclasses.asdict(self.settings)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _context_length(config: Mapping[str, Any]) -> int:
    length = config.get("max_position_embeddings")
    return length if isinstance(length, int) else CONTEXT_TOKENS
