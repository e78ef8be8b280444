"""Which models fit this machine, with the sum that says so: part of `localhpo doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from localhpo.cli._checks import Check
from localhpo.cli._model_views import arithmetic, size
from localhpo.llm import cards, profiles, served
from localhpo.llm.cards import Entry
from localhpo.llm.memory import PROPOSAL_TOKENS, Memory, need
from localhpo.scheduler.placement import Inventory

_MB = 2**20
_SPLITS = (1, 2, 4, 8)
_SMALLER = "choose a smaller model, or a version with packed weights"


@dataclass(frozen=True, slots=True)
class Room:
    """Where a model would run."""

    name: str
    memory_bytes: int
    single_precision: bool
    """Whether weights are unpacked to four bytes each, as in process on a CPU."""
    count: int = 1
    """How many there are of it, over which a model may be split."""


def checks(inventory: Inventory) -> Iterator[Check]:
    """Yield whether each model and each profile fits: a GPU where there is one, else the RAM."""
    room = find_room(inventory)
    if room is None:
        told = "how much memory this machine has is not known"
        yield Check("fit", "note", told, "pip install nvidia-ml-py")
        return
    way = (
        "in process in single precision"
        if room.single_precision
        else f"in a server of vLLM that draws {served.AT_ONCE} answers"
    )
    yield Check(
        "fit",
        "ok",
        f"models are held against {room.name} with {size(room.memory_bytes)}, {way}, for"
        f" proposals of {PROPOSAL_TOKENS:,} tokens; trials need room beside them",
    )
    for entry in cards.entries():
        if entry.card or entry.state != "broken":
            yield _of_model(entry, room)
    for profile in profiles.profiles().values():
        length = profile.shape.context_length
        _, told = told_fit(profile.memory, profile.parameters, length, room)
        yield Check(f"profile {profile.name}", "ok", told)


def find_room(inventory: Inventory) -> Room | None:
    """Return the largest GPU, or the RAM where there is none; None where nothing is known."""
    if not inventory.gpus and inventory.memory_mb is not None:
        return Room("the RAM", int(inventory.memory_mb * _MB), single_precision=True)
    largest = max(inventory.gpus, key=lambda gpu: gpu.memory_mb or 0.0, default=None)
    if largest is None or largest.memory_mb is None:
        return None
    name = f"gpu {largest.label or largest.id}"
    as_large = sum((gpu.memory_mb or 0.0) >= largest.memory_mb for gpu in inventory.gpus)
    return Room(name, int(largest.memory_mb * _MB), single_precision=False, count=as_large)


def told_fit(memory: Memory, parameters: int, context_length: int, room: Room) -> tuple[bool, str]:
    """Return whether a model fits, and the sum that says so.

    Where it is too large for one GPU, it may fit several: a part of the weights on each, and no
    more of all else.
    """
    if room.single_precision:
        sums = {1: need(memory.in_single_precision(parameters), context_length)}
    else:
        sums = {
            split: served.need(
                replace(memory, weights_bytes=memory.weights_bytes // split), context_length
            )
            for split in _SPLITS
            if split <= room.count
        }
    split = next((n for n in sums if sums[n].total_bytes <= room.memory_bytes), 0)
    verdict = {0: "too large", 1: "fits"}.get(split, f"fits {split} GPUs (model_gpus = {split})")
    there = size(room.memory_bytes) + (" each" if split > 1 else "")
    return split > 0, f"{verdict}: {arithmetic(sums[split or 1])} of {there}"


def _of_model(entry: Entry, room: Room) -> Check:
    name, card = f"fit {entry.name}", entry.card
    if card and card.memory:
        known = card.memory, card.parameters, card.context_length
    elif worked_out := _worked_out(entry.path):
        known = worked_out
    else:
        told = "what it needs is not known"
        return Check(name, "note", told, f"add it: localhpo models add {entry.path}")
    fits, told = told_fit(*known, room)
    return Check(name, "ok", told) if fits else Check(name, "note", told, _SMALLER)


def _worked_out(folder: Path) -> tuple[Memory, int, int] | None:
    """Return memory, parameters and context of a model whose card does not say what it needs."""
    from localhpo.errors import CardError
    from localhpo.llm import adding

    try:
        shape, found, memory = adding.measure(folder)
    except CardError:
        return None
    return memory, found.parameters, shape.context_length
