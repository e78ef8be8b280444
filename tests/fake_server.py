"""A fake of a vLLM server: a real process that holds real host memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from localhpo.llm.placement import MemoryRequest
from localhpo.llm.vllm import Settings

HELD_BYTES = 120_000_000

PROGRAM = f"""
import sys
held = bytearray({HELD_BYTES})
print("ready", flush=True)
for line in sys.stdin:
    if line == "sleep\\n" and "frees" in sys.argv:
        held = None
    elif line == "wake\\n":
        held = held or bytearray({HELD_BYTES})
    print("done", flush=True)
"""


class FakeServer:
    """A server that holds 120 MB while awake; as `keeps`, its sleep frees nothing.

    It has the members of `llm.protocol.ModelServer`.
    """

    def __init__(self, kind: Literal["frees", "keeps"] = "frees") -> None:
        self._kind = kind
        self._process: subprocess.Popen[str] | None = None
        self.sleeping = False
        self.orders: list[str] = []
        """All orders that it got, in sequence."""
        self.shared = False
        self.on_cpu = True
        self.can_sleep = True
        self.weight_bytes = self.need_bytes = HELD_BYTES
        self.settings = Settings()
        self.gpus: tuple[str, ...] = ()

    @property
    def memory_request(self) -> MemoryRequest:
        chosen = self.settings
        share = chosen.gpu_share or 0.0
        return MemoryRequest(self.need_bytes, self.on_cpu, share, chosen.gpus, chosen.gpu_count)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def starts(self) -> int:
        return self.orders.count("start")

    def start(self) -> None:
        self.orders.append("start")
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", PROGRAM, self._kind]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._wait()

    def stop(self) -> None:
        self.orders.append("stop")
        if self._process is not None:
            with self._process as process:
                process.kill()
        self._process, self.sleeping = None, False

    def sleep(self, level: int) -> None:
        assert level in (1, 2)
        self._order("sleep")
        self.sleeping = True

    def wake(self) -> None:
        self._order("wake")
        self.sleeping = False

    def _order(self, word: str) -> None:
        self.orders.append(word)
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline()


@contextmanager
def running(kind: Literal["frees", "keeps"] = "frees") -> Iterator[FakeServer]:
    """Start a server for the block, and stop it afterwards."""
    server = FakeServer(kind)
    server.start()
    try:
        yield server
    finally:
        server.stop()
