"""Shared by the commands of benchmarks: lists of names, progress, and failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from scripts.benchmarks.pool import FailedCall, RunProgress

_PROGRESS_INTERVAL_S = 5.0


def parse_names(names: str | None, option: str) -> list[str] | None:
    """Return the names of a comma-separated list, each once; None where none was given."""
    if names is None:
        return None
    unique = dict.fromkeys(name.strip() for name in names.split(","))
    if "" in unique:
        raise click.BadParameter(
            f"must be names separated by commas, got {names!r}", param_hint=option
        )
    return list(unique)


def progress_printer() -> Callable[[RunProgress], None]:
    """Return a function that prints the progress of a run to standard error, at intervals."""
    from localhpo.analysis import formatting

    printed_s = 0.0

    def print_progress(progress: RunProgress) -> None:
        nonlocal printed_s
        is_last = progress.done == progress.total
        if not is_last and progress.elapsed_s - printed_s < _PROGRESS_INTERVAL_S:
            return
        printed_s = progress.elapsed_s
        left_s = progress.elapsed_s / progress.done * (progress.total - progress.done)
        left = "" if is_last else f", about {formatting.duration(left_s)} left"
        click.echo(
            f"{progress.done:,} of {progress.total:,} studies after "
            f"{formatting.duration(progress.elapsed_s)}{left}: {progress.latest}",
            err=True,
        )

    return print_progress


def raise_first(failed: Sequence[FailedCall]) -> None:
    """Raise an error for the first of the failed studies, if there are any.

    Raises:
        LocalHPOError: with their number, and the cause of the first.
    """
    from localhpo.errors import LocalHPOError

    if failed:
        first = failed[0]
        hint = first.error.hint if isinstance(first.error, LocalHPOError) else ""
        raise LocalHPOError(
            f"{len(failed)} studies have no result; the first: {first.what}: "
            f"{type(first.error).__name__}: {first.error}",
            hint=hint or "the same command tries them again",
        )
