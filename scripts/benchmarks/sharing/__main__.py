"""Compare `auto` with each fixed mode of sharing, on a grid of machines, models and trials.

    python -m scripts.benchmarks.sharing             # the whole grid, some fifteen minutes
    python -m scripts.benchmarks.sharing --quick     # the part that a test runs
    python -m scripts.benchmarks.sharing --sample 50 # random settings of the grid
    python -m scripts.benchmarks.sharing --seeds 5   # studies per setting: means are compared
    python -m scripts.benchmarks.sharing --inventory machine.toml --all # the grid on that machine

The same seed gives the same table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from localhpo.errors import InputError
from localhpo.resources.simulated_inventory import load_inventory
from scripts.benchmarks.sharing import grid
from scripts.benchmarks.sharing.study import SimulationSetting


def main() -> int:
    """Print the table; return 1 where `auto` is worse than the best fixed mode."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small part of the grid")
    parser.add_argument("--sample", type=int, help="number of random settings of the grid")
    parser.add_argument("--inventory", type=Path, help="file that describes the machine")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=1, help="number of studies per setting")
    parser.add_argument("--all", action="store_true", help="print every row beside the summary")
    parser.add_argument("--json", action="store_true", help="print every study as JSON instead")
    options = parser.parse_args()
    settings = grid.QUICK if options.quick else grid.FULL
    if options.inventory:
        try:
            settings = grid.list_settings_of(load_inventory(options.inventory))
        except InputError as error:
            parser.error(str(error))
    if options.sample:
        settings = grid.draw_settings(options.sample, options.seed, settings)
    seeds = range(options.seed, options.seed + options.seeds)
    rows = list(_compare_all(settings, seeds))
    if options.json:
        print(json.dumps([row.to_data() for row in rows], indent=1))
    else:
        for line in grid.format_table(rows, every=options.all or options.quick):
            print(line)
    return 0 if all(row.is_within_tolerance for row in rows) else 1


def _compare_all(
    settings: Sequence[SimulationSetting], seeds: Sequence[int]
) -> Iterator[grid.SettingComparison]:
    """Yield the rows, and show progress on a terminal."""
    worst = 0.0
    for done, setting in enumerate(settings):
        if sys.stderr.isatty():
            progress = f"{done} of {len(settings)} settings, worst {worst:.3f}"
            print(f"\r{progress}", end="", file=sys.stderr, flush=True)
        row = grid.compare_modes(setting, seeds)
        worst = max(worst, row.excess)
        yield row
    if sys.stderr.isatty():
        print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
