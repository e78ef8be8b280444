"""Who shares out the memory of this machine, as a model's server meets it: asked before it starts."""

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
