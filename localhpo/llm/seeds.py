"""Derives the seeds of a call's answers."""

from __future__ import annotations

import hashlib


def derive_seeds(seed: int, n: int) -> list[int]:
    """Return the seeds of `n` answers; the first is `seed` itself.

    So an answer can be generated again alone, with its own seed. The others are hashed, so that
    calls with neighboring seeds share none. They have 31 bits, the limit of servers.
    """
    return [seed, *(_hash(seed, index) for index in range(1, n))]


def _hash(seed: int, index: int) -> int:
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
