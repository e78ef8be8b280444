"""Helps that end with examples, which a test runs as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class _WithExamples(click.Command):
    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = tuple(examples)
        """Lines for a shell; what follows a `#` is for the reader."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are: a line that is wrapped cannot be copied."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


class Command(_WithExamples):
    """A command with examples."""


class Group(_WithExamples, click.Group):
    """A group with examples."""
