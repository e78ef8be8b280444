"""A fake of torch for the programs of the smoke test, which records in files what they allocate.

Copied beside the programs as `torch.py`. One file per process, named by its id, has the MB that it
holds; `FAKE_GPU` names their folder.
"""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path

TOTAL_MB = 16_000
CONTEXT_MB = 400

uint8 = None
_note = Path(os.environ["FAKE_GPU"]) / str(os.getpid())
_held_mb = float(CONTEXT_MB)
atexit.register(_note.unlink, missing_ok=True)


class OutOfMemoryError(RuntimeError):
    """Like the error of torch."""


def _used_mb() -> float:
    return sum(float(note.read_text() or 0) for note in _note.parent.iterdir())


def empty(size: int, dtype: object, device: str) -> object:
    global _held_mb
    if _used_mb() + size / 2**20 > TOTAL_MB:
        raise OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 2**20:.0f} MiB")
    _held_mb += size / 2**20
    _note.write_text(str(_held_mb))
    return object()


class Matrix:
    """A matrix whose multiplication takes a while."""

    def __matmul__(self, _other: Matrix) -> Matrix:
        time.sleep(0.001)
        return self


def randn(*_size: int, device: str) -> Matrix:
    return Matrix()


def tanh(value: Matrix) -> Matrix:
    return value


class cuda:
    """Like the module `torch.cuda`."""

    @staticmethod
    def synchronize() -> None:
        pass

    @staticmethod
    def mem_get_info() -> tuple[int, int]:
        return int((TOTAL_MB - _used_mb()) * 2**20), TOTAL_MB * 2**20

    @staticmethod
    def max_memory_reserved() -> float:
        return (_held_mb - CONTEXT_MB) * 2**20
