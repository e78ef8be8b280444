"""Who shares out the memory of this machine, and what a model takes of it.

A server asks before it starts. A model in this process takes what it takes, and tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localhpo.llm.vllm import ManagedServer

FindRoom = Callable[["ManagedServer"], Sequence[str] | None]
"""From a server that is about to start to the devices that it gets; none: those that it had, or
its settings name. None while there is no room: it asks again."""


@dataclass(frozen=True, slots=True)
class Host:
    """Lets a server start at once, and is told nothing, by default."""

    find_room: FindRoom = lambda server: ()  # noqa: ARG005
    say: Callable[[str], None] = lambda message: None  # noqa: ARG005
    """Tells the user what is waited for."""


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A model in this process that is on a device."""

    uuid: str
    """Of the device, as the driver spells it behind `GPU-`."""
    index: int
    """Of the device, among those that this process sees."""
    reserved_bytes: int
    """By torch, now; the driver counts more."""
    room_bytes: int
    """That it takes beyond what it holds when it was loaded: to read, to answer, to work."""
