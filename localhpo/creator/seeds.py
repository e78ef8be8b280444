"""Seeds of proposals, derived from the study's seed and the number of the trial.

Nothing else enters, so a study that is resumed in another process goes on as it would have.
"""

from __future__ import annotations

import zlib

import numpy as np

from localhpo.creator.protocol import History


def derive(history: History, purpose: str, attempt: int = 0) -> int:
    """Return the seed (31 bits) of one random choice for the next trial.

    Args:
        history: of the study; its seed and next number count.
        purpose: keeps the choices of one proposal apart.
        attempt: keeps the tries for one purpose apart.
    """
    entropy = (history.seed % 2**64, history.next_number, zlib.crc32(purpose.encode()), attempt)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0]) >> 1
