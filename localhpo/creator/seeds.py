"""Seeds of proposals, derived from the study's seed and the number of the next trial.

Nothing else enters, so a study that is resumed in another process goes on as it would have.
"""

from __future__ import annotations

import zlib

import numpy as np

from localhpo.creator.protocol import History


def derive_seed(history: History, purpose: str, attempt: int = 0) -> int:
    """Return the seed (31 bits) of one random choice for the next trial.

    Args:
        history: the study so far; its seed and next number count.
        purpose: separates the random choices of one proposal. Changing its text changes the seed.
        attempt: separates the attempts at one purpose.
    """
    entropy = (history.seed % 2**64, history.next_number, zlib.crc32(purpose.encode()), attempt)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0]) >> 1
