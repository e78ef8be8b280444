"""The grid of settings, the comparison in each, and the table of them."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from localhpo.errors import InputError
from localhpo.resources.placement import Inventory
from localhpo.task import Sharing
from scripts.benchmarks.sharing.study import (
    ASLEEP_GB,
    GB,
    SimulationResult,
    SimulationSetting,
    run_study,
)

FIXED: Mapping[str, Sharing] = {
    "fixed share": "resident",
    "always sleep": "sleep",
    "stop and start": "stop",
}
"""Name of a fixed mode, as other tools work -> setting of `sharing`."""

TOLERANCE = 1.05
"""`auto` may take at most this multiple of the time of the best fixed mode."""

MACHINES = ((1, 24.0), (2, 24.0), (4, 24.0), (1, 80.0), (2, 80.0), (4, 80.0), (8, 80.0))
MODELS_GB = (2.0, 8.0, 16.0, 54.0)
TRIALS_GB: tuple[float | tuple[float, float], ...] = (2.0, 5.0, 10.0, 18.0, 23.0, 40.0, 75.0)
TRIALS_S = (10.0, 60.0, 600.0, 3_600.0)


@dataclass(frozen=True, slots=True)
class StudyComparison:
    """One study, run in each mode with the same trials."""

    seed: int
    auto: SimulationResult
    fixed: Mapping[str, SimulationResult]

    @property
    def best(self) -> float | None:
        """Wall clock of the best fixed mode that runs every trial; None where none does."""
        times = [result.wall_s for result in self.fixed.values() if self.is_comparable(result)]
        return min(times, default=None)

    def is_comparable(self, result: SimulationResult) -> bool:
        """Return whether a fixed mode runs the same trials as `auto`."""
        return result.ran == self.auto.ran and not result.refused

    @property
    def excess(self) -> float:
        """Wall clock of `auto` relative to the best fixed mode; 0 where none is comparable."""
        return self.auto.wall_s / self.best if self.best else 0.0

    @property
    def runs_all(self) -> bool:
        """Whether `auto` runs as many trials as any fixed mode."""
        return self.auto.ran >= max(result.ran for result in self.fixed.values())


@dataclass(frozen=True, slots=True)
class SettingComparison:
    """One setting, in several studies.

    The best mode of a single study depends on the order in which its trials end, so means over
    studies are compared.
    """

    setting: SimulationSetting
    studies: Sequence[StudyComparison]

    @property
    def excess(self) -> float:
        """Wall clock of `auto` relative to the best fixed mode; 0 where none is comparable.

        The best mode is the same for all studies: the one with the best mean.
        """
        ratios = [
            [study.auto.wall_s / study.fixed[name].wall_s for study in self.studies]
            for name in FIXED
            if all(study.is_comparable(study.fixed[name]) for study in self.studies)
        ]
        return max((statistics.fmean(of_mode) for of_mode in ratios), default=0.0)

    @property
    def above(self) -> int:
        """Number of studies in which it is above the tolerance."""
        return sum(study.excess > TOLERANCE for study in self.studies)

    @property
    def is_within_tolerance(self) -> bool:
        """Whether `auto` runs as many trials as any fixed mode, about as fast."""
        return self.excess <= TOLERANCE and all(study.runs_all for study in self.studies)

    def to_data(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        return {**asdict(self), "excess": self.excess, "above": self.above}


def compare_modes(setting: SimulationSetting, seeds: Sequence[int]) -> SettingComparison:
    """Run the studies of a setting in every mode."""
    return SettingComparison(setting, tuple(_compare_study(setting, seed) for seed in seeds))


def _compare_study(setting: SimulationSetting, seed: int) -> StudyComparison:
    fixed = {name: run_study(setting, sharing, seed) for name, sharing in FIXED.items()}
    return StudyComparison(seed, run_study(setting, "auto", seed), fixed)


def list_settings(
    machines: Sequence[tuple[int, float]],
    models_gb: Sequence[float],
    trials_gb: Sequence[float | tuple[float, float]],
    trials_s: Sequence[float],
) -> list[SimulationSetting]:
    """Return the settings in which the model and the trials each fit the machine."""
    found = []
    for (gpus, gpu_gb), model_gb, trial_gb, trial_s in itertools.product(
        machines, models_gb, trials_gb, trials_s
    ):
        trials = max(40, 12 * gpus * min(4, int(gpu_gb // _largest_gb(trial_gb))))
        if max(model_gb, _largest_gb(trial_gb)) <= gpu_gb:
            found.append(SimulationSetting(gpus, gpu_gb, model_gb, trial_gb, trial_s, trials))
    return found


def _largest_gb(trial_gb: float | tuple[float, float]) -> float:
    return max(trial_gb) if isinstance(trial_gb, tuple) else trial_gb


FULL = list_settings(MACHINES, MODELS_GB, (*TRIALS_GB, (5.0, 20.0)), TRIALS_S)
SMALL = list_settings(((1, 24.0), (2, 80.0)), (16.0,), (5.0, 18.0, (5.0, 20.0)), (10.0, 600.0))
REGRESSIONS = (  # short and large trials, where `auto` was once up to 82 % worse
    *list_settings(((1, 80.0),), (54.0,), (23.0,), (10.0,)),
    *list_settings(((2, 24.0),), (8.0, 16.0), (18.0, 23.0), (10.0, 60.0)),
    *list_settings(((2, 80.0),), (54.0,), (40.0, 75.0), (10.0,)),
    *list_settings(((4, 24.0),), (2.0, 8.0, 16.0), (23.0,), (10.0,)),
    *list_settings(((4, 80.0),), (54.0,), (75.0,), (10.0,)),
)


def list_settings_of(inventory: Inventory) -> list[SimulationSetting]:
    """Return the settings of the grid on a machine.

    Raises:
        InputError: its devices differ in size, or none of the models fits one.
    """
    sizes_mb = {gpu.usable_mb for gpu in inventory.gpus}
    size_mb = sizes_mb.pop() if len(sizes_mb) == 1 else None
    if size_mb is None:
        raise InputError(
            f"the GPUs of the inventory must have one known size; got {len(sizes_mb)} sizes of"
            f" {len(inventory.gpus)} GPUs"
        )
    machine = (len(inventory.gpus), size_mb / GB)
    found = list_settings([machine], MODELS_GB, (*TRIALS_GB, (5.0, 20.0)), TRIALS_S)
    if not found:
        raise InputError(
            f"a GPU must hold the smallest model of the grid, of {MODELS_GB[0]:g} GB; got"
            f" {size_mb:.0f} MB"
        )
    return found


def draw_settings(
    count: int, seed: int, among: Sequence[SimulationSetting] | None = None
) -> list[SimulationSetting]:
    """Return `count` random settings, by default of the whole grid."""
    among = FULL if among is None else among
    return random.Random(seed).sample(among, min(count, len(among)))


QUICK = (*SMALL, *REGRESSIONS, *draw_settings(8, seed=0))


def format_table(rows: Sequence[SettingComparison], *, every: bool) -> Iterator[str]:
    """Yield the lines of the table and its summary."""
    if every:
        yield from (_format_head(), *(_format_row(row) for row in rows), "")
    yield from _summarize(rows)


def _format_head() -> str:
    modes = " ".join(f"{name:>16}" for name in ("auto", *FIXED))
    return (
        f"{'machine':>9} {'model':>6} {'trial':>9} {'length':>7} | {modes} | {'excess':>7}  modes"
    )


def _format_row(row: SettingComparison) -> str:
    s, first = row.setting, row.studies[0]
    size = "/".join(f"{gb:g}" for gb in s.sizes_gb)
    cells = " ".join(_format_cell(result) for result in (first.auto, *first.fixed.values()))
    excess = f"{100 * (row.excess - 1):+.1f} %" if row.excess else "-"
    above = f" {row.above} of {len(row.studies)} above" if len(row.studies) > 1 else ""
    return (
        f"{s.gpus:>3} x {s.gpu_gb:g} {s.model_gb:>5g}G {size:>8}G {s.trial_s:>6g}s | {cells} | "
        f"{excess:>7}{above}  {' '.join(first.auto.modes)}"
    )


def _format_cell(result: SimulationResult) -> str:
    """Return wall clock and busy share; `*` marks refused trials."""
    if not result.ran:
        return f"{'none runs':>16}"
    mark = "*" if result.refused else ""
    return f"{result.wall_s:>9.0f} s {100 * result.busy:>2.0f} %{mark:1}"


def _summarize(rows: Sequence[SettingComparison]) -> Iterator[str]:
    studies = [study for row in rows for study in row.studies]
    excesses = [row.excess for row in rows if row.excess]
    yield (
        f"{len(rows)} settings, {len(rows[0].studies)} studies of each; "
        f"a sleeping server holds {ASLEEP_GB:g} GB"
    )
    if excesses:
        yield (
            "wall clock of auto relative to the best fixed mode:"
            f" {statistics.median(excesses):.3f} (median), {max(excesses):.3f} (worst),"
            f" {min(excesses):.3f} (best)"
        )
    for name in FIXED:
        yield _compare_with(name, studies)
    shares = [study.fixed["fixed share"] for study in studies]
    lost = sum(s.auto.ran for s, share in zip(studies, shares, strict=True) if not share.ran)
    ran = sum(study.auto.ran for study in studies)
    yield f"trials that auto runs and a fixed share cannot: {lost} of {ran}"
    partly = sum(bool(share.ran and share.refused) for share in shares)
    yield f"studies in which a fixed share refuses part of the proposals: {partly}"
    broken = [row for row in rows if not row.is_within_tolerance]
    yield f"settings in which auto is worse than the best by more than 5 %: {len(broken)}"
    if broken:
        yield from (_format_head(), *(_format_row(row) for row in broken))


def _compare_with(name: str, studies: Sequence[StudyComparison]) -> str:
    """Return a sentence that compares one fixed mode with `auto`."""
    both = [(s.fixed[name], s.auto) for s in studies if s.is_comparable(s.fixed[name])]
    if not both:
        return f"{name}: runs all trials in no study"
    faster = [fixed.wall_s / auto.wall_s for fixed, auto in both]
    results = zip(*both, strict=True)
    busy, auto_busy = (100 * statistics.fmean(r.busy for r in of_mode) for of_mode in results)
    return (
        f"{name}: runs all trials in {len(both)} studies, not in {len(studies) - len(both)}; where "
        f"it does, it takes {statistics.fmean(faster):.2f} times as long as auto (worst "
        f"{max(faster):.2f}), devices busy {busy:.0f} % against {auto_busy:.0f} %"
    )
