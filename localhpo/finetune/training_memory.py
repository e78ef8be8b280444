"""How much memory a training takes, before it starts."""

from __future__ import annotations

from pathlib import Path

from localhpo.errors import InputError
from localhpo.llm.folder import config, weights
from localhpo.llm.memory import WORK_BYTES
from localhpo.llm.tuning_record import Method

_SINGLE = 4
"""Bytes of a number in single precision, in which a CPU trains."""

_ADAM = 3 * _SINGLE
"""Bytes for each trained weight beside itself: its gradient and two moments."""

_NUMBERS_A_LAYER = 34
"""Numbers that a layer keeps of one token for the way back, in units of its width (Korthikanti
et al. 2022, https://arxiv.org/abs/2205.05198, with attention that keeps no matrix)."""

_SCORES = 3
"""Copies of a token's scores: as computed, in single precision, and their gradient."""


def estimate_training_bytes(
    base: Path, method: Method, *, rank: int, tokens: int, on_cpu: bool
) -> int:
    """Return what training takes on its device, at most.

    Args:
        base: folder of the model.
        method: what is trained.
        rank: of adapters.
        tokens: of the longest row.
        on_cpu: there all numbers are in single precision.

    Raises:
        CardError: the folder is not a complete model.
    """
    said = config.read_config(base)
    found = weights.summarize(weights.read_headers(base), config.parse_shape(said))
    width, layers = int(said["hidden_size"]), int(said["num_hidden_layers"])
    number = _SINGLE if on_cpu or method == "full" else 2
    # Seven matrices a layer, each with two thin ones; the widest is some four times the width.
    trained = found.parameters if method == "full" else layers * 7 * rank * 5 * width
    kept = tokens * layers * width * _NUMBERS_A_LAYER * number
    scores = tokens * int(said["vocab_size"]) * _SINGLE * _SCORES
    masks = tokens * tokens * number
    held = found.parameters * number + trained * (_ADAM + _SINGLE)
    return held + kept + scores + masks + WORK_BYTES


def check_memory(needed: int, free: int, device: str) -> None:
    """Refuse a training that cannot fit.

    Raises:
        InputError: it needs more than is free.
    """
    if needed > free:
        raise InputError(
            f"training needs about {needed / 2**30:.1f} GiB on {device}, of which "
            f"{free / 2**30:.1f} GiB are free",
            hint="free the device, choose another, or tune a smaller model; --method lora and a "
            "smaller --batch-tokens take less",
        )


def find_free_bytes(device: str) -> int:
    """Return the memory that is free on a device, as torch names it."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
