"""One seed for each answer of a call."""

from __future__ import annotations

import hashlib


def derive_seeds(seed: int, n: int) -> list[int]:
    """Return the seeds of `n` answers, the first of which is `seed` itself.

    So an answer can be drawn again alone, with its own seed. The others are hashed, so that
    calls with neighboring seeds share none. They fit 31 bits: servers take no more.
    """
    return [seed, *(_hash(seed, index) for index in range(1, n))]


def _hash(seed: int, index: int) -> int:
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
