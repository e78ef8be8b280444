"""Estimates the memory of a training before it starts."""

from __future__ import annotations

from pathlib import Path

from localhpo.errors import InputError
from localhpo.llm.models import config, weights
from localhpo.llm.models.memory import WORK_BYTES
from localhpo.llm.models.tuning_record import Method

_SINGLE = 4
"""Bytes of a number in single precision, which training on a CPU uses."""

_ADAM = 3 * _SINGLE
"""Bytes per trained weight besides itself: its gradient and two moments."""

_NUMBERS_A_LAYER = 34
"""Activations per layer and token that the backward pass needs, in units of the width (Korthikanti
et al. 2022, https://arxiv.org/abs/2205.05198, with attention that stores no matrix)."""

_SCORES = 3
"""Copies of the logits of a token: as computed, in single precision, and their gradient."""


def estimate_training_bytes(
    base: Path, method: Method, *, rank: int, tokens: int, on_cpu: bool
) -> int:
    """Return an upper estimate of the memory of a training on its device.

    Args:
        base: folder of the model.
        method: whether an adapter or all weights are trained.
        rank: rank of the adapter.
        tokens: tokens of the longest row.
        on_cpu: whether it trains on a CPU, in single precision.

    Raises:
        CardError: the folder is not a complete model.
    """
    table = config.read_config(base)
    found = weights.summarize_weights(weights.read_headers(base), config.parse_shape(table))
    width, layers = int(table["hidden_size"]), int(table["num_hidden_layers"])
    number = _SINGLE if on_cpu or method == "full" else 2
    # An adapter adds two thin matrices to each of seven per layer; the widest is about 4 x width.
    trained = found.parameters if method == "full" else layers * 7 * rank * 5 * width
    kept = tokens * layers * width * _NUMBERS_A_LAYER * number
    scores = tokens * int(table["vocab_size"]) * _SINGLE * _SCORES
    masks = tokens * tokens * number
    held = found.parameters * number + trained * (_ADAM + _SINGLE)
    return held + kept + scores + masks + WORK_BYTES


def check_memory(needed: int, free: int, device: str) -> None:
    """Refuse a training that does not fit.

    Raises:
        InputError: it needs more memory than is free.
    """
    if needed > free:
        raise InputError(
            f"training needs about {needed / 2**30:.1f} GiB on {device}, where "
            f"{free / 2**30:.1f} GiB are free",
            hint="free memory on the device, choose another device, or fine-tune a smaller model; "
            "--method lora and a smaller --batch-tokens need less",
        )


def find_free_bytes(device: str) -> int:
    """Return the free memory of a device, which is named as torch does."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
