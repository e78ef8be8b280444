"""Compare `auto` with each fixed way of sharing, on a grid of machines, models and trials.

    python -m scripts.simulate_sharing             # the whole grid, most of an hour
    python -m scripts.simulate_sharing --quick     # the part of it that a test runs
    python -m scripts.simulate_sharing --sample 50 # so many settings of the grid, by chance
    python -m scripts.simulate_sharing --seeds 5   # each with so many studies: the law is of means
    python -m scripts.simulate_sharing --inventory machine.toml --all    # the grid on that machine

Everything is drawn under a seed: the same table every time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from localhpo.errors import InputError
from localhpo.scheduler.simulated import load_inventory
from scripts.simulate_sharing import grid
from scripts.simulate_sharing.study import Setting


def main() -> int:
    """Print the table; 1 where `auto` breaks the law."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small part of the grid")
    parser.add_argument("--sample", type=int, help="so many settings of the grid")
    parser.add_argument("--inventory", type=Path, help="the machine: a file of simulated devices")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="so many studies for each setting")
    parser.add_argument("--all", action="store_true", help="print every row, not the summary alone")
    parser.add_argument("--json", action="store_true", help="print every study as JSON instead")
    options = parser.parse_args()
    settings = grid.QUICK if options.quick else grid.FULL
    if options.inventory:
        try:
            settings = grid.on(load_inventory(options.inventory))
        except InputError as error:
            parser.error(str(error))
    if options.sample:
        settings = grid.sample(options.sample, options.seed, settings)
    seeds = range(options.seed, options.seed + options.seeds)
    rows = list(_compared(settings, seeds))
    if options.json:
        print(json.dumps([row.to_data() for row in rows], indent=1))
    else:
        for line in grid.table(rows, every=options.all or options.quick):
            print(line)
    return 0 if all(row.keeps_the_law for row in rows) else 1


def _compared(settings: Sequence[Setting], seeds: Sequence[int]) -> Iterator[grid.Row]:
    """Yield the rows, and say on a terminal how far it is."""
    worst = 0.0
    for done, setting in enumerate(settings):
        if sys.stderr.isatty():
            said = f"{done} of {len(settings)} settings, worst {worst:.3f}"
            print(f"\r{said}", end="", file=sys.stderr, flush=True)
        row = grid.compare(setting, seeds)
        worst = max(worst, row.excess)
        yield row
    if sys.stderr.isatty():
        print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
