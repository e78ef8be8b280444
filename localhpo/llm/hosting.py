"""Who shares out the memory of this machine, and what a model asks for and takes of it.

A model asks before it is loaded, wherever that is: a server before it starts, one in this process
before it is put on a device. What it then takes it tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NO_ROOM = "there is no room for it beside what others hold"

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model asks for."""

    size_bytes: int
    """Of each of its devices, or of the host. An estimate."""
    on_cpu: bool = False
    """Whether it is to be in the memory of the host."""
    share: float = 0.0
    """Of a device's memory, which it takes where that is more."""
    gpus: tuple[str, ...] = ()
    """That were chosen for it, and that it takes all; none: `split` that it is given."""
    split: int = 1
    """Over how many devices, where none were chosen."""
    among: tuple[str, ...] = ()
    """UUIDs of those that it can be given, as `OnDevice` has them, in the order in which its
    process counts them; none: any one. It is told its own by the same name."""


FindRoom = Callable[[Wanted], Sequence[str] | None]
"""From what a model asks for to the devices that it gets; none: those that it had, or would take.
None while there is no room: it asks again."""


@dataclass(frozen=True, slots=True)
class Host:
    """Lets a model be loaded at once, and is told nothing, by default."""

    find_room: FindRoom = lambda wanted: ()  # noqa: ARG005
    say: Callable[[str], None] = lambda message: None  # noqa: ARG005
    """Tells the user what is waited for."""

    def wait_for_room(self, wanted: Wanted, name: str) -> Sequence[str]:
        """Ask for room until there is some, as long as it takes; return the devices."""
        said = False
        while (gpus := self.find_room(wanted)) is None:
            if not said:
                self.say(f"waits to load {name}: {NO_ROOM}")
            said = True
            time.sleep(_POLL_S)
        return gpus


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
