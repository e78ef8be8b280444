"""`python -m scripts.benchmarks`: compares Creators. See `commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from localhpo import cli
from scripts.benchmarks.commands import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return cli.main(arguments, command, "python -m scripts.benchmarks")


if __name__ == "__main__":
    sys.exit(main())
