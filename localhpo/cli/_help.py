"""Commands whose help ends with examples. A test runs every example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class _WithExamples(click.Command):
    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = tuple(examples)
        """Shell lines; text after `#` is a comment."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without wrapping, so that they can be copied."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


class Command(_WithExamples):
    """A command whose help has examples."""


class Group(_WithExamples, click.Group):
    """A group whose help has examples."""
