"""Progress where there is no terminal: one line per event, on standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from localhpo.analysis import wording

if TYPE_CHECKING:
    from localhpo.scheduler.observer import Snapshot
    from localhpo.store import Event


class Lines:
    """An observer for logs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held."""

    def on_event(self, event: Event) -> None:
        """Print what happened."""
        clock = time.strftime("%H:%M:%S", time.localtime(event.time))
        trial = "" if event.trial is None else f"trial {event.trial} "
        click.echo(f"{clock} {trial}{event.kind}: {wording.plain(event.message)}", err=True)

    def on_change(self, snapshot: Snapshot) -> None:
        """Print nothing: what changed without an event is for those who watch."""
