"""How trials and the model's server share memory: a pure function of statistics.

    resident   the server stays resident; trials run in the memory that is left
    device     the server has a device of its own; trials run on the others
    sleep      the server sleeps while trials run that need its memory; it wakes up to propose
    stop       the same, by stopping and starting it
    cpu        the model is in host memory; trials have the devices

The modes are compared by how long the remaining trials would take in each (`forecast`), starting
from what runs now and from the server's present state. An offloaded server leaves more slots for
trials, at a price: slots stay empty until its device is free, and while it wakes up, makes
proposals and is offloaded again. Until a trial has ended, the longest running one is a lower bound
of their length; `SHORTEST_S` is assumed at once, or short studies would be over before anything is
known. Nothing is decided before the first proposals: neither the sizes of trials nor the time that
proposals take are known then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from localhpo.resources.placement import Assignment
from localhpo.scheduler import forecast
from localhpo.scheduler.forecast import SharingPlan
from localhpo.scheduler.loaded_model import OffloadMethod, ServerState
from localhpo.task import Sharing

SharingMode = Literal["resident", "device", "sleep", "stop", "cpu"]

STATE_AFTER: Mapping[OffloadMethod, ServerState] = {"sleep": "offloaded", "stop": "stopped"}
"""Offload method -> state of the server afterwards."""

GAIN = 1.02
"""Another mode is chosen where the present one would take this many times as long: forecasts are
no more precise. The factor applies once more per earlier change, or two equally good modes would
alternate and pay for every change. It applies once more before `FEW` trials have ended, where
offloading and restoring takes longer than a trial: soon more will be known.

It is small because `auto` may lose this much against the best fixed mode. At 1.05, and a gain of at
least half a trial, one more slot of 16 or 24 was forgone, which costs 3 %
(`scripts.benchmarks.sharing`)."""

FEW = 3
"""Ended trials that are needed to estimate the length of others from theirs."""

SHORTEST_S = 10.0
"""Assumed minimum length of a trial until one has ended: loading a deep learning library and its
data takes about as long."""

MAX_WAIT_SHARE = 0.02
"""Proposals are prefetched where waiting for them would take more than this share of a trial."""

MAX_WAIT_SHARE_ONE_SLOT = 0.05
"""The same for a single slot, where a prefetched proposal misses the only running result, which
sets a study back by one trial. In 20 trials, waiting for this share costs as much."""


@dataclass(frozen=True, slots=True)
class SharingStatistics:
    """Statistics from which a mode is chosen.

    Slots are numbers of trials at once, as means over the sizes of trials; 0 where trials of some
    size cannot run.
    """

    slots_resident: float
    """Slots while the server is resident."""
    slots_elsewhere: float
    """Of these, slots on devices that are not the server's."""
    slots_asleep: float | None
    """Slots while the server sleeps; None where it cannot sleep."""
    slots_stopped: float | None
    """Slots while it is stopped; None where it cannot be stopped."""
    max_slots: Mapping[SharingMode, int] = field(default_factory=dict)
    """Slots by mode if all trials had the smallest size: proposals are wanted for these."""
    propose_s: float = 0.0
    """Measured time of one call for proposals; 0 before the first."""
    offload_s: Mapping[OffloadMethod, float] = field(default_factory=dict)
    """Time to offload the server, by method: measured, or assumed before the first time."""
    restore_s: Mapping[OffloadMethod, float] = field(default_factory=dict)
    """Time to make it resident again."""
    trial_s: float | None = None
    """Mean length of the trials seen, at least; None before the first is started."""
    results: int = 0
    """Number of trials that have ended."""
    trials_left: int | None = None
    """Number of trials that will still be started; None for no limit."""
    buffered: int = 0
    """Number of proposals that wait for a slot."""
    server_state: ServerState = "resident"
    server_device_ages_s: Sequence[float] = ()
    """How long each trial on the server's device has run."""
    other_ages_s: Sequence[float] = ()
    """How long each other trial has run."""
    contended: bool = True
    """Whether model and trials want the same memory at all."""

    @property
    def is_blank(self) -> bool:
        """Whether nothing is known yet: no trial, no proposal, no measured time."""
        return self.trial_s is None and not self.buffered and not self.propose_s


@dataclass(frozen=True, slots=True)
class SharingDecision:
    """A mode, and the reason for it."""

    mode: SharingMode
    reason: str


def choose_mode(
    sharing: Sharing,
    statistics: SharingStatistics,
    present: SharingMode | None = None,
    changes: int = 0,
) -> SharingDecision:
    """Return the mode to continue with.

    Args:
        sharing: The user's setting.
        statistics: Statistics of the study so far.
        present: The mode so far; another one must be better by `GAIN`. The server starts resident.
        changes: Number of changes so far; each makes the next one less likely.
    """
    if sharing != "auto":
        return _follow_setting(sharing, statistics)
    if not statistics.contended:
        return SharingDecision("cpu", "model and trials use different memory")
    on_own_device = 0 < statistics.slots_elsewhere == statistics.slots_resident
    kept: SharingMode = "device" if on_own_device else "resident"
    possible = {
        kept: statistics.slots_resident,
        "sleep": statistics.slots_asleep,
        "stop": statistics.slots_stopped,
    }
    slots: dict[SharingMode, float] = {
        mode: n
        for mode, n in possible.items()
        if n and (mode == kept or _gains_slots(mode, n, statistics))
    }
    if not slots:
        return SharingDecision(kept, "no trial fits in memory, with or without the model")
    if slots.keys() == {kept}:
        return SharingDecision(
            kept,
            f"offloading the model would not let more than {statistics.slots_resident:.3g} trials"
            " run at once",
        )
    if kept in slots and statistics.is_blank:
        return SharingDecision(kept, "until the first proposals are made")
    if (
        present in slots
        and statistics.trials_left is not None
        and statistics.trials_left <= statistics.buffered
    ):
        return SharingDecision(present, "the model has no more proposals to make")
    times_s = {mode: estimate_remaining_s(mode, n, statistics) for mode, n in slots.items()}
    present = kept if present is None else present
    factors = {mode: _gain_factor(mode, statistics, changes) for mode in times_s if mode != present}
    best = min(times_s, key=lambda mode: times_s[mode] * factors.get(mode, 1.0))
    return SharingDecision(best, _describe_comparison(times_s, slots, statistics))


def _gain_factor(mode: SharingMode, statistics: SharingStatistics, changes: int) -> float:
    """Return how many times as long the present mode must take for a change to this one."""
    away_s = statistics.offload_s[mode] + statistics.restore_s[mode] if _offloads(mode) else 0.0
    is_early = statistics.results < FEW and away_s > _trial_s(statistics)
    return GAIN ** (1 + changes + is_early)


def why_no_effect(chosen: Sharing, model: Assignment | None) -> str | None:
    """Return why a setting can never take effect; None where it can.

    Args:
        chosen: The user's setting.
        model: What the model holds; None where there is no model to share memory with.
    """
    if chosen in ("auto", "resident"):
        return None
    if model is None:
        return "no model server runs whose memory this study can measure and free"
    if chosen == "cpu" and model.gpus:
        return f"the model's server is on device {', '.join(model.gpus)}"
    if chosen == "device" and not model.gpus:
        return "the model's server is in host memory"
    return None


def estimate_remaining_s(mode: SharingMode, slots: float, statistics: SharingStatistics) -> float:
    """Return how long the remaining trials would take in a mode."""
    left = _UNLIMITED if statistics.trials_left is None else statistics.trials_left
    return forecast.estimate_remaining_s(_make_plan(mode, slots, statistics), left)


def _make_plan(mode: SharingMode, slots: float, statistics: SharingStatistics) -> SharingPlan:
    """Return the mode in whole slots, on the server's device and elsewhere.

    Where sizes are mixed, means are rounded, and trials are made longer or shorter to compensate.
    An offloaded server frees at least one slot: it is never offloaded for nothing.
    """
    elsewhere = round(statistics.slots_elsewhere)
    method = mode if _gains_slots(mode, slots, statistics) else None
    whole = max(1, round(slots), elsewhere + 1 if method else elsewhere)
    offloaded = resident = whole - elsewhere
    if method:
        resident = min(offloaded - 1, round(statistics.slots_resident - statistics.slots_elsewhere))
    most = max(whole, statistics.max_slots.get(mode, whole))
    trial_s = _trial_s(statistics)
    return SharingPlan(
        slots_resident=resident,
        slots_offloaded=offloaded,
        slots_elsewhere=elsewhere,
        slots=most,
        prefetch=_prefetch_count(mode, most, statistics),
        trial_s=trial_s * whole / slots,
        propose_s=statistics.propose_s,
        offload_s=statistics.offload_s[method] if method else 0.0,
        restore_s=statistics.restore_s[method] if method else 0.0,
        first_restore_s=_first_restore_s(method, statistics),
        buffered=statistics.buffered,
        server_device_ages_s=_round_ages(statistics.server_device_ages_s, trial_s),
        other_ages_s=_round_ages(statistics.other_ages_s, trial_s),
    )


def _round_ages(ages_s: Sequence[float], trial_s: float) -> tuple[float, ...]:
    """Return ages in steps, so that forecasts can be cached."""
    step_s = max(trial_s, 1e-3) / _STEPS  # simulated trials may take no time
    return tuple(step_s * math.floor(age_s / step_s) for age_s in ages_s)


def count_prefetch(mode: SharingMode, slots: float, statistics: SharingStatistics) -> int:
    """Return how many proposals to prefetch, beyond those that free slots wait for.

    0 where waiting for them costs next to nothing: a later proposal knows more results. 0 before
    the first result too, unless slots on other devices would wait until the server's own is free:
    then one per slot, since nothing is known of how long they will last.
    """
    waits_for_device = _gains_slots(mode, slots, statistics) and statistics.slots_elsewhere > 0
    if statistics.trial_s is None or not (statistics.results or waits_for_device):
        return 0
    most = _prefetch_count(mode, slots, statistics)
    return most if statistics.results else min(most, math.ceil(slots))


def _prefetch_count(mode: SharingMode, slots: float, statistics: SharingStatistics) -> int:
    """Return the number of proposals to prefetch once there are results.

    They must last while two calls for proposals take, the present one and the next. One per slot
    lasts half a trial on average; more than two per slot would know too few results.
    """
    if not _pays_to_prefetch(mode, slots, statistics):
        return 0
    rounds = 2 * _wait_s(mode, slots, statistics) / _trial_s(statistics)
    return math.ceil(slots * min(max(1.0, rounds), _MAX_PREFETCH))


_MAX_PREFETCH = 2.0
"""Prefetched proposals per slot, at most."""

_ROUNDING = 1e-9  # of a mean

_STEPS = 10
"""A forecast takes the ages of trials in so many steps of their length."""

_UNLIMITED = 1_000
"""Number of trials that is planned for where there is no limit."""


def _offloads(mode: SharingMode) -> TypeGuard[OffloadMethod]:
    return mode in STATE_AFTER


def _gains_slots(
    mode: SharingMode, slots: float, statistics: SharingStatistics
) -> TypeGuard[OffloadMethod]:
    """Return whether the mode offloads the server, and more trials run at once for it."""
    return _offloads(mode) and slots > statistics.slots_resident * (1 + _ROUNDING)


def _trial_s(statistics: SharingStatistics) -> float:
    return SHORTEST_S if statistics.trial_s is None else statistics.trial_s


def _first_restore_s(method: OffloadMethod | None, statistics: SharingStatistics) -> float:
    """Return the time from the present state until the server is resident; 0 where it is.

    A sleeping server is stopped first where that is the method.
    """
    methods = [each for each, state in STATE_AFTER.items() if state == statistics.server_state]
    if methods and method:
        methods.append(method)
    return max((statistics.restore_s[each] for each in methods), default=0.0)


def _pays_to_prefetch(mode: SharingMode, slots: float, statistics: SharingStatistics) -> bool:
    """Return whether waiting for proposals would take more than a little of a trial."""
    # Other devices must not wait until the server's own is free, nor slots of one for each other.
    if _gains_slots(mode, slots, statistics) and (
        statistics.slots_elsewhere or slots - statistics.slots_resident > 1
    ):
        return True
    share = MAX_WAIT_SHARE if slots > 1 else MAX_WAIT_SHARE_ONE_SLOT
    return _wait_s(mode, slots, statistics) > share * _trial_s(statistics)


def _wait_s(mode: SharingMode, slots: float, statistics: SharingStatistics) -> float:
    """Return the time from the server's device being free until its next trials can start."""
    wait_s = statistics.propose_s
    if _gains_slots(mode, slots, statistics):
        wait_s += statistics.restore_s[mode] + statistics.offload_s[mode]
    return wait_s


def _follow_setting(sharing: Sharing, statistics: SharingStatistics) -> SharingDecision:
    """Return the mode that the user set, or the nearest one that this server supports."""
    if sharing == "sleep" and statistics.slots_asleep is None:
        if statistics.slots_stopped is None:
            return SharingDecision(
                "resident", 'sharing = "sleep" is set, but the model\'s memory cannot be freed'
            )
        return SharingDecision(
            "stop", 'sharing = "sleep" is set, but the server cannot sleep, or frees nothing by it'
        )
    if sharing == "stop" and statistics.slots_stopped is None:
        return SharingDecision(
            "resident", 'sharing = "stop" is set, but the model cannot be stopped'
        )
    assert sharing != "auto"
    return SharingDecision(sharing, "chosen by the user")


def _describe_comparison(
    times_s: Mapping[SharingMode, float],
    slots: Mapping[SharingMode, float],
    statistics: SharingStatistics,
) -> str:
    estimates = ", ".join(
        f"{mode} {times_s[mode]:.4g} s ({slots[mode]:.3g} at once)" for mode in sorted(times_s)
    )
    costs = ", ".join(
        f"{method} and restore {statistics.offload_s[method] + statistics.restore_s[method]:.3g} s"
        for method in STATE_AFTER
        if method in times_s
    )
    left = statistics.trials_left
    trials = "1000 trials" if left is None else f"the remaining {left} trials"
    return (
        f"{trials} would take {estimates}; a trial takes at least {_trial_s(statistics):.3g} s, "
        f"a proposal {statistics.propose_s:.3g} s, {costs}"
    )
