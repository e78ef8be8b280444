"""What the verbs of `localhpo bench` share: lists of names, progress, and failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from localhpo.bench.pool import Failed, Progress

_SAY_EVERY_S = 5.0


def listed(names: str | None, option: str) -> list[str] | None:
    """Return the names of a comma-separated list, each once; None where none was given."""
    if names is None:
        return None
    listed = dict.fromkeys(name.strip() for name in names.split(","))
    if "" in listed:
        raise click.BadParameter(f"names, separated by commas; got {names!r}", param_hint=option)
    return list(listed)


def teller() -> Callable[[Progress], None]:
    """Return what tells of a run on standard error: now and then, and at its end."""
    from localhpo.analysis import wording

    told_s = 0.0

    def tell(progress: Progress) -> None:
        nonlocal told_s
        is_last = progress.done == progress.total
        if not is_last and progress.elapsed_s - told_s < _SAY_EVERY_S:
            return
        told_s = progress.elapsed_s
        left_s = progress.elapsed_s / progress.done * (progress.total - progress.done)
        left = "" if is_last else f", about {wording.duration(left_s)} left"
        click.echo(
            f"{progress.done:,} of {progress.total:,} studies after "
            f"{wording.duration(progress.elapsed_s)}{left}: {progress.latest}",
            err=True,
        )

    return tell


def raise_first(failed: Sequence[Failed]) -> None:
    """Raise where units failed.

    Raises:
        LocalHPOError: says how many, and of the first one why.
    """
    from localhpo.errors import LocalHPOError

    if failed:
        first = failed[0]
        raise LocalHPOError(
            f"{len(failed)} studies have no result; the first: {first.what}: "
            f"{type(first.error).__name__}: {first.error}",
            hint=getattr(first.error, "hint", "") or "the same command tries them again",
        )
