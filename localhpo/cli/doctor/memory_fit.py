"""Which models fit into the memory of this machine: part of `localhpo doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from localhpo.cli.doctor.checks import Check
from localhpo.cli.models.views import memory_sum, memory_text
from localhpo.llm.models import profiles
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.memory import PROPOSAL_TOKENS, ModelMemory, estimate_memory
from localhpo.llm.models.registry import ModelListing
from localhpo.llm.vllm import memory as server_memory
from localhpo.resources.placement import Inventory

_MB = 2**20
_SPLITS = (1, 2, 4, 8)
"""Numbers of GPUs over which a model can be split."""
_CHOOSE_SMALLER = "choose a smaller model, or a quantized version"


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """Memory of this machine for a model: that of a GPU, or the RAM."""

    name: str
    memory_bytes: int
    single_precision: bool
    """Whether weights take four bytes each, as in process on a CPU."""
    count: int = 1
    """Number of such GPUs, over which a model may be split."""


def check_memory_fits(inventory: Inventory) -> Iterator[Check]:
    """Yield whether each model and each profile fits: on a GPU where there is one, else in RAM."""
    memory = find_memory(inventory)
    if memory is None:
        unknown = "the memory of this machine is unknown"
        yield Check("memory for models", "note", unknown, "pip install nvidia-ml-py")
        return
    way = (
        "in process with 32-bit weights"
        if memory.single_precision
        else f"in a vLLM server that generates {server_memory.AT_ONCE} answers at a time"
    )
    yield Check(
        "memory for models",
        "ok",
        f"{memory_text(memory.memory_bytes)} of {memory.name}, which trials need a part of",
        detail=f"models are assumed to run {way}, with {PROPOSAL_TOKENS:,} tokens of prompt and"
        " answer",
    )
    for entry in model_registry.list_models():
        if entry.card or entry.state != "broken":
            yield _check_model(entry, memory)
    for profile in profiles.read_profiles().values():
        length = profile.shape.context_length
        fits, finding, detail = compare_memory(profile.memory, profile.parameters, length, memory)
        yield Check(
            f"profile {profile.name}", "ok", finding,
            detail=detail, known_model=profile.name, fits=fits,
        )  # fmt: skip


def find_memory(inventory: Inventory) -> MachineMemory | None:
    """Return the memory of the largest GPU, or the RAM without one; None where it is unknown."""
    if not inventory.gpus and inventory.memory_mb is not None:
        return MachineMemory("RAM", int(inventory.memory_mb * _MB), single_precision=True)
    largest = max(inventory.gpus, key=lambda gpu: gpu.memory_mb or 0.0, default=None)
    if largest is None or largest.memory_mb is None:
        return None
    name = f"gpu {largest.label or largest.id}"
    count = sum((gpu.memory_mb or 0.0) >= largest.memory_mb for gpu in inventory.gpus)
    size_bytes = int(largest.memory_mb * _MB)
    return MachineMemory(name, size_bytes, single_precision=False, count=count)


def compare_memory(
    memory: ModelMemory, parameters: int, context_length: int, available: MachineMemory
) -> tuple[bool, str, str]:
    """Return whether a model fits, that in words, and the sum behind it.

    A model that is too large for one GPU may fit several: each holds a part of the weights, and
    all else in full.
    """
    if available.single_precision:
        needs = {1: estimate_memory(memory.in_single_precision(parameters), context_length)}
    else:
        needs = {
            split: server_memory.estimate_memory(
                replace(memory, weights_bytes=memory.weights_bytes // split), context_length
            )
            for split in _SPLITS
            if split <= available.count
        }
    split = next((n for n in needs if needs[n].total_bytes <= available.memory_bytes), 0)
    verdict = {0: "too large", 1: "fits"}.get(split, f"fits {split} GPUs (model_gpus = {split})")
    needed = needs[split or 1]
    limit = memory_text(available.memory_bytes) + (" each" if split > 1 else "")
    finding = f"{verdict}: needs {memory_text(needed.total_bytes)} of {limit}"
    return split > 0, finding, memory_sum(needed)


def _check_model(entry: ModelListing, available: MachineMemory) -> Check:
    name = f"fit {entry.name}"
    known = find_needs(entry)
    if known is None:
        is_tuned = entry.card is not None and entry.card.tuned is not None
        hint = "" if is_tuned else f"add it: localhpo models add {entry.path}"
        return Check(name, "note", "its memory needs are unknown", hint)
    fits, finding, detail = compare_memory(*known, available)
    if fits:
        return Check(name, "ok", finding, detail=detail, fits=True)
    return Check(name, "note", finding, _CHOOSE_SMALLER, detail=detail, fits=False)


def find_needs(entry: ModelListing) -> tuple[ModelMemory, int, int] | None:
    """Return memory, parameters and context of a model: from its card, else from its files.

    An adapter needs the memory of its base, and its own beside it. None where files are missing.
    """
    from localhpo.errors import CardError
    from localhpo.llm.models import registration

    card = entry.card
    if card and card.memory and not card.is_adapter:
        return card.memory, card.parameters, card.context_length
    try:
        folder = model_registry.find_base_folder(entry.path, card)
        shape, found, memory = registration.measure_model(folder)
    except CardError:
        return None
    if card and card.is_adapter:
        whole = memory.weights_bytes + entry.size_bytes
        memory = replace(memory, weights_bytes=whole)
    return memory, found.parameters, shape.context_length
