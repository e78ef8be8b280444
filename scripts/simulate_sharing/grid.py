"""The grid of settings, the comparison in each, and the table of them."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from localhpo.task import Sharing
from scripts.simulate_sharing.study import ASLEEP_GB, Result, Setting, run

FIXED: Mapping[str, Sharing] = {
    "fixed share": "resident",
    "always sleep": "sleep",
    "stop and start": "stop",
}
"""What others do -> the mode that does it."""

TOLERANCE = 1.02
"""`auto` takes at most so many times as long as the best of them."""

MACHINES = ((1, 24.0), (2, 24.0), (4, 24.0), (1, 80.0), (2, 80.0), (4, 80.0), (8, 80.0))
MODELS_GB = (2.0, 8.0, 16.0, 54.0)
TRIALS_GB: tuple[float | tuple[float, float], ...] = (2.0, 5.0, 10.0, 18.0, 23.0, 40.0, 75.0)
TRIALS_S = (10.0, 60.0, 600.0, 3_600.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, run in each way."""

    setting: Setting
    auto: Result
    fixed: Mapping[str, Result]

    @property
    def best(self) -> float | None:
        """Wall clock of the best fixed way that runs every trial; None where none does."""
        times = [r.wall_s for r in self.fixed.values() if r.ran == self.auto.ran and not r.refused]
        return min(times, default=None)

    @property
    def excess(self) -> float:
        """Wall clock of `auto` over that of the best; 0 where there is none to compare with."""
        return self.auto.wall_s / self.best if self.best else 0.0

    @property
    def keeps_the_law(self) -> bool:
        """Whether `auto` runs what any other way runs, and as fast, within the tolerance."""
        most = max(result.ran for result in self.fixed.values())
        return self.auto.ran >= most and self.excess <= TOLERANCE


def compare(setting: Setting, seed: int) -> Row:
    """Run a setting in every way, on the same trials."""
    fixed = {name: run(setting, sharing, seed) for name, sharing in FIXED.items()}
    return Row(setting, run(setting, "auto", seed), fixed)


def settings(
    machines: Sequence[tuple[int, float]],
    models_gb: Sequence[float],
    trials_gb: Sequence[float | tuple[float, float]],
    trials_s: Sequence[float],
) -> list[Setting]:
    """Return the settings in which the model fits the machine, and the trials do at all."""
    found = []
    for (gpus, gpu_gb), model_gb, trial_gb, trial_s in itertools.product(
        machines, models_gb, trials_gb, trials_s
    ):
        trials = max(40, 12 * gpus * min(4, int(gpu_gb // _largest(trial_gb))))
        if max(model_gb, _largest(trial_gb)) <= gpu_gb:
            found.append(Setting(gpus, gpu_gb, model_gb, trial_gb, trial_s, trials))
    return found


def _largest(trial_gb: float | tuple[float, float]) -> float:
    return max(trial_gb) if isinstance(trial_gb, tuple) else trial_gb


FULL = settings(MACHINES, MODELS_GB, (*TRIALS_GB, (5.0, 20.0)), TRIALS_S)
SMALL = settings(((1, 24.0), (2, 80.0)), (16.0,), (5.0, 18.0, (5.0, 20.0)), (10.0, 600.0))
ONCE_BROKEN = (  # short trials and large ones: `auto` was up to 82 % worse there
    *settings(((1, 80.0),), (54.0,), (23.0,), (10.0,)),
    *settings(((2, 24.0),), (8.0, 16.0), (18.0, 23.0), (10.0, 60.0)),
    *settings(((2, 80.0),), (54.0,), (40.0, 75.0), (10.0,)),
    *settings(((4, 24.0),), (2.0, 8.0, 16.0), (23.0,), (10.0,)),
    *settings(((4, 80.0),), (54.0,), (75.0,), (10.0,)),
)


def sample(count: int, seed: int) -> list[Setting]:
    """Return so many settings of the grid, drawn by chance."""
    return random.Random(seed).sample(FULL, count)


QUICK = (*SMALL, *ONCE_BROKEN, *sample(8, seed=0))


def table(rows: Sequence[Row], *, every: bool) -> Iterator[str]:
    """Yield the lines of the table, and of what it comes to."""
    if every:
        yield from (_head(), *(_line(row) for row in rows), "")
    yield from _summary(rows)


def _head() -> str:
    ways = " ".join(f"{name:>16}" for name in ("auto", *FIXED))
    return f"{'machine':>9} {'model':>6} {'trial':>9} {'length':>7} | {ways} | {'excess':>7}  modes"


def _line(row: Row) -> str:
    s = row.setting
    size = "/".join(f"{gb:g}" for gb in s.sizes_gb)
    cells = " ".join(_cell(result) for result in (row.auto, *row.fixed.values()))
    excess = f"{100 * (row.excess - 1):+.1f} %" if row.best else "-"
    return (
        f"{s.gpus:>3} x {s.gpu_gb:g} {s.model_gb:>5g}G {size:>8}G {s.trial_s:>6g}s | {cells} | "
        f"{excess:>7}  {' '.join(row.auto.modes)}"
    )


def _cell(result: Result) -> str:
    """Return wall clock and busy share, or how many trials could not be run."""
    if not result.ran:
        return f"{'none runs':>16}"
    mark = "*" if result.refused else ""
    return f"{result.wall_s:>9.0f} s {100 * result.busy:>2.0f} %{mark:1}"


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    compared = [row for row in rows if row.best]
    excesses = [row.excess for row in compared]
    yield f"{len(rows)} settings; a sleeping server holds {ASLEEP_GB:g} GB"
    if excesses:
        yield (
            f"auto against the best fixed way, wall clock: {statistics.median(excesses):.3f} "
            f"(median), {max(excesses):.3f} (worst), {min(excesses):.3f} (best)"
        )
    for name in FIXED:
        both = [r for r in rows if r.fixed[name].ran == r.auto.ran and not r.fixed[name].refused]
        faster = [r.fixed[name].wall_s / r.auto.wall_s for r in both]
        busy = [r.fixed[name].busy for r in both]
        auto = [r.auto.busy for r in both]
        cannot = len(rows) - len(both)
        yield (
            f"{name}: runs all trials in {len(both)} settings, not in {cannot}; where it does, it "
            f"takes {statistics.fmean(faster):.2f} times as long as auto (worst "
            f"{max(faster):.2f}), devices busy {100 * statistics.fmean(busy):.0f} % "
            f"against {100 * statistics.fmean(auto):.0f} %"
        )
    lost = sum(row.auto.ran for row in rows if not row.fixed["fixed share"].ran)
    partly = [
        row for row in rows if row.fixed["fixed share"].ran and row.fixed["fixed share"].refused
    ]
    ran = sum(row.auto.ran for row in rows)
    yield f"trials that auto runs and a fixed share cannot: {lost} of {ran}"
    yield f"settings in which a fixed share refuses part of the proposals: {len(partly)}"
    broken = [row for row in rows if not row.keeps_the_law]
    yield f"settings in which auto is worse than the best by more than 2 %: {len(broken)}"
    if broken:
        yield from (_head(), *(_line(row) for row in broken))
