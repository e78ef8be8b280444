"""Compare `auto` with each fixed way of sharing, on a grid of machines, models and trials.

    python -m scripts.simulate_sharing             # the whole grid, some minutes
    python -m scripts.simulate_sharing --quick     # the part of it that a test runs
    python -m scripts.simulate_sharing --sample 50 # so many settings of the grid, by chance

Everything is drawn under a seed: the same table every time.
"""

from __future__ import annotations

import argparse
import sys

from scripts.simulate_sharing import grid


def main() -> int:
    """Print the table; 1 where `auto` breaks the law."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small part of the grid")
    parser.add_argument("--sample", type=int, help="so many settings of the grid")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="print every row, not the summary alone")
    options = parser.parse_args()
    settings = grid.QUICK if options.quick else grid.FULL
    if options.sample:
        settings = grid.sample(options.sample, options.seed)
    rows = [grid.compare(setting, options.seed) for setting in settings]
    for line in grid.table(rows, every=options.all or options.quick):
        print(line)
    return 0 if all(row.keeps_the_law for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
