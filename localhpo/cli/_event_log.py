"""Progress without a terminal: one line per event, on standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from localhpo.analysis import formatting

if TYPE_CHECKING:
    from localhpo.scheduler.observer import Snapshot
    from localhpo.store import Event


class EventLog:
    """Observer that prints each event as a line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: there is nothing to close."""

    def on_event(self, event: Event) -> None:
        """Print an event."""
        clock = time.strftime("%H:%M:%S", time.localtime(event.time))
        trial = "" if event.trial is None else f"trial {event.trial} "
        click.echo(f"{clock} {trial}{event.kind}: {formatting.printable(event.message)}", err=True)

    def on_change(self, snapshot: Snapshot) -> None:
        """Ignore changes that are no events: only a live display shows them."""
