"""The grid of settings, the comparison in each, and the table of them."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from localhpo.errors import InputError
from localhpo.scheduler.placement import Inventory
from localhpo.task import Sharing
from scripts.simulate_sharing.study import ASLEEP_GB, GB, Result, Setting, run

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
class Comparison:
    """One study, run in each way, on the same trials."""

    seed: int
    auto: Result
    fixed: Mapping[str, Result]

    @property
    def best(self) -> float | None:
        """Wall clock of the best fixed way that runs every trial; None where none does."""
        times = [result.wall_s for result in self.fixed.values() if self.rivals(result)]
        return min(times, default=None)

    def rivals(self, result: Result) -> bool:
        """Return whether a fixed way runs what `auto` runs."""
        return result.ran == self.auto.ran and not result.refused

    @property
    def excess(self) -> float:
        """Wall clock of `auto` over that of the best; 0 where there is none to compare with."""
        return self.auto.wall_s / self.best if self.best else 0.0

    @property
    def runs_all(self) -> bool:
        """Whether `auto` runs what any other way runs."""
        return self.auto.ran >= max(result.ran for result in self.fixed.values())


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, in so many studies.

    Which way a single study suits depends on the order in which its trials end: that the law is
    broken is said of means.
    """

    setting: Setting
    studies: Sequence[Comparison]

    @property
    def excess(self) -> float:
        """Wall clock of `auto` over that of the best fixed way; 0 where there is none.

        A way is fixed: the best is the one that is best as a mean over the studies.
        """
        ratios = [
            [study.auto.wall_s / study.fixed[name].wall_s for study in self.studies]
            for name in FIXED
            if all(study.rivals(study.fixed[name]) for study in self.studies)
        ]
        return max((statistics.fmean(of_way) for of_way in ratios), default=0.0)

    @property
    def above(self) -> int:
        """In how many studies it is above the tolerance."""
        return sum(study.excess > TOLERANCE for study in self.studies)

    @property
    def keeps_the_law(self) -> bool:
        """Whether `auto` runs what any other way runs, and as fast, within the tolerance."""
        return self.excess <= TOLERANCE and all(study.runs_all for study in self.studies)

    def to_data(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {**asdict(self), "excess": self.excess, "above": self.above}


def compare(setting: Setting, seeds: Sequence[int]) -> Row:
    """Run a setting in every way."""
    return Row(setting, tuple(_study(setting, seed) for seed in seeds))


def _study(setting: Setting, seed: int) -> Comparison:
    fixed = {name: run(setting, sharing, seed) for name, sharing in FIXED.items()}
    return Comparison(seed, run(setting, "auto", seed), fixed)


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


def on(inventory: Inventory) -> list[Setting]:
    """Return the settings of the grid on a machine.

    Raises:
        InputError: its devices are not alike, or none of the models fits one.
    """
    sizes_mb = {gpu.usable_mb for gpu in inventory.gpus}
    size_mb = sizes_mb.pop() if len(sizes_mb) == 1 else None
    if size_mb is None:
        raise InputError(
            f"the GPUs of the inventory must be of one size, which it says; got {len(sizes_mb)}"
            f" sizes of {len(inventory.gpus)} GPUs"
        )
    machine = (len(inventory.gpus), size_mb / GB)
    found = settings([machine], MODELS_GB, (*TRIALS_GB, (5.0, 20.0)), TRIALS_S)
    if not found:
        raise InputError(
            f"a GPU must hold the smallest model of the grid, of {MODELS_GB[0]:g} GB; got"
            f" {size_mb:.0f} MB"
        )
    return found


def sample(count: int, seed: int, among: Sequence[Setting] | None = None) -> list[Setting]:
    """Return so many settings, by default of the whole grid, drawn by chance."""
    among = FULL if among is None else among
    return random.Random(seed).sample(among, min(count, len(among)))


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
    s, first = row.setting, row.studies[0]
    size = "/".join(f"{gb:g}" for gb in s.sizes_gb)
    cells = " ".join(_cell(result) for result in (first.auto, *first.fixed.values()))
    excess = f"{100 * (row.excess - 1):+.1f} %" if row.excess else "-"
    above = f" {row.above} of {len(row.studies)} above" if len(row.studies) > 1 else ""
    return (
        f"{s.gpus:>3} x {s.gpu_gb:g} {s.model_gb:>5g}G {size:>8}G {s.trial_s:>6g}s | {cells} | "
        f"{excess:>7}{above}  {' '.join(first.auto.modes)}"
    )


def _cell(result: Result) -> str:
    """Return wall clock and busy share, or how many trials could not be run."""
    if not result.ran:
        return f"{'none runs':>16}"
    mark = "*" if result.refused else ""
    return f"{result.wall_s:>9.0f} s {100 * result.busy:>2.0f} %{mark:1}"


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    studies = [study for row in rows for study in row.studies]
    excesses = [row.excess for row in rows if row.excess]
    yield (
        f"{len(rows)} settings, {len(rows[0].studies)} studies of each; "
        f"a sleeping server holds {ASLEEP_GB:g} GB"
    )
    if excesses:
        yield (
            f"auto against the best fixed way, wall clock: {statistics.median(excesses):.3f} "
            f"(median), {max(excesses):.3f} (worst), {min(excesses):.3f} (best)"
        )
    for name in FIXED:
        yield _against(name, studies)
    shares = [study.fixed["fixed share"] for study in studies]
    lost = sum(s.auto.ran for s, share in zip(studies, shares, strict=True) if not share.ran)
    ran = sum(study.auto.ran for study in studies)
    yield f"trials that auto runs and a fixed share cannot: {lost} of {ran}"
    partly = sum(bool(share.ran and share.refused) for share in shares)
    yield f"studies in which a fixed share refuses part of the proposals: {partly}"
    broken = [row for row in rows if not row.keeps_the_law]
    yield f"settings in which auto is worse than the best by more than 2 %: {len(broken)}"
    if broken:
        yield from (_head(), *(_line(row) for row in broken))


def _against(name: str, studies: Sequence[Comparison]) -> str:
    """Return the sentence on one fixed way."""
    both = [(s.fixed[name], s.auto) for s in studies if s.rivals(s.fixed[name])]
    if not both:
        return f"{name}: runs all trials in no study"
    faster = [fixed.wall_s / auto.wall_s for fixed, auto in both]
    ways = zip(*both, strict=True)
    busy, auto_busy = (100 * statistics.fmean(result.busy for result in way) for way in ways)
    return (
        f"{name}: runs all trials in {len(both)} studies, not in {len(studies) - len(both)}; where "
        f"it does, it takes {statistics.fmean(faster):.2f} times as long as auto (worst "
        f"{max(faster):.2f}), devices busy {busy:.0f} % against {auto_busy:.0f} %"
    )
