"""How trials and the model's server share memory: a plain rule, a pure function of statistics.

    resident   the server stays resident; trials run in the memory that is left
    device     the server has a device of its own; trials run on the others
    sleep      the server sleeps while trials run that need its memory; it wakes up to propose
    stop       the same, by stopping and starting it
    cpu        the model is in host memory; trials have the devices

`auto` chooses the mode with the highest rate of trials: those that run at once, by the length of a
trial. Where the server is offloaded, half a call for proposals adds to that length: slots are empty
meanwhile. A restart takes about a minute, so `stop` is left out while trials are shorter than half
of that, unless no trial fits otherwise. Of equal modes, the first of this list is chosen. An
offloaded server leaves when a trial waits that fits only without it, and comes back when a proposal
is due (`should_ask`).

The manual compares this rule with a forecast of the whole study (page "benchmarks").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from localhpo.resources.placement import Assignment
from localhpo.scheduler.loaded_model import OffloadMethod, ServerState
from localhpo.task import Sharing

SharingMode = Literal["resident", "device", "sleep", "stop", "cpu"]

STATE_AFTER: Mapping[OffloadMethod, ServerState] = {"sleep": "offloaded", "stop": "stopped"}
"""Offload method -> state of the server afterwards."""

RESTART_S = 60.0
"""A server takes about so long to stop and to start again: half a minute until it loads anything,
and half a second for each GB of the model. Sleeping and waking up take about as long as a call for
proposals."""

SHORTEST_S = 10.0
"""Trials are taken to be no shorter until one has ended."""

MAX_WAIT_SHARE = 0.05
"""Proposals are prefetched where waiting for them would take more than this share of a trial. A
prefetched proposal knows fewer results, which costs about as much."""

_GAIN = 1.05
"""The mode changes where the rate of another is this many times as high: with trials of mixed
sizes, the means go up and down."""


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
    propose_s: float = 0.0
    """Measured time of one call for proposals; 0 before the first."""
    trial_s: float = 0.0
    """Mean length of the trials that have ended; before that, how long the longest has run."""
    results: int = 0
    """Number of trials that have ended."""
    sizes_known: bool = True
    """Whether the memory that trials need is known; not before the first proposals."""
    contended: bool = True
    """Whether model and trials want the same memory at all."""


@dataclass(frozen=True, slots=True)
class SharingDecision:
    """A mode, and the reason for it."""

    mode: SharingMode
    reason: str


def choose_mode(
    sharing: Sharing, statistics: SharingStatistics, present: SharingMode | None = None
) -> SharingDecision:
    """Return the mode to continue with.

    Args:
        sharing: The user's setting.
        statistics: Statistics of the study so far.
        present: The mode so far; None before the first choice.
    """
    if sharing != "auto":
        return _follow_setting(sharing, statistics)
    if not statistics.contended:
        return SharingDecision("cpu", "model and trials use different memory")
    slots = _count_slots(statistics)
    kept = next(iter(slots))
    if not statistics.sizes_known and slots[kept]:
        return SharingDecision(kept, "until the first proposals are made")
    rates = {mode: n / _slot_s(mode, statistics) for mode, n in slots.items()}
    best = max(rates, key=lambda mode: rates[mode])  # the first of equal ones
    if present in rates and 0 < rates[best] <= _GAIN * rates[present]:
        best = present
    return SharingDecision(best, _describe(slots, rates))


def _count_slots(statistics: SharingStatistics) -> dict[SharingMode, float]:
    """Return the slots of each mode that may be chosen, the cheapest mode first.

    The server is offloaded only where more trials run at once for it.
    """
    resident = statistics.slots_resident
    on_own_device = 0 < statistics.slots_elsewhere == resident
    slots: dict[SharingMode, float] = {"device" if on_own_device else "resident": resident}
    if statistics.slots_asleep is not None and statistics.slots_asleep > resident:
        slots["sleep"] = statistics.slots_asleep
    stopped = statistics.slots_stopped
    pays_to_stop = statistics.trial_s >= RESTART_S / 2 or not any(slots.values())
    if stopped is not None and stopped > resident and pays_to_stop:
        slots["stop"] = stopped
    return slots


def _slot_s(mode: SharingMode, statistics: SharingStatistics) -> float:
    """Return how long a trial holds a slot, with its share of the server's absence."""
    trial_s = max(statistics.trial_s, 1e-3 if statistics.results else SHORTEST_S)
    return trial_s + (statistics.propose_s / 2 if mode in STATE_AFTER else 0.0)


def _describe(slots: Mapping[SharingMode, float], rates: Mapping[SharingMode, float]) -> str:
    if not any(slots.values()):
        return "no trial fits in memory, with or without the model"
    return ", ".join(
        f"{3600 * rates[mode]:.3g} trials an hour in mode {mode} ({n:.3g} at once)"
        for mode, n in slots.items()
    )


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


def should_ask(
    *, is_resident: bool, buffered: int, running: int, slots: int, elsewhere: float
) -> bool:
    """Return whether to ask for proposals now, in a mode that offloads the server.

    An offloaded server is restored when a slot has nothing to run. Where trials run on other
    devices, it is restored while these still have buffered proposals, which keep them busy until
    the server's own device is free. A resident server is asked before it would have to be restored
    again at once.
    """
    if is_resident:
        return buffered <= max(elsewhere, slots - running)
    return buffered <= elsewhere and running < slots


def count_prefetch(mode: SharingMode, slots: float, statistics: SharingStatistics) -> int:
    """Return how many proposals to prefetch, beyond those that free slots wait for.

    None before the first result, nor where waiting for them costs next to nothing: a later
    proposal knows more results. Otherwise one per slot, or two where trials are so short that the
    model could not keep up.
    """
    if not statistics.results:
        return 0
    wait_s, trial_s = statistics.propose_s, statistics.trial_s
    is_short = trial_s < 2 * wait_s
    if mode in STATE_AFTER and slots > statistics.slots_resident:
        wait_s += RESTART_S if mode == "stop" else 0.0
        is_short = trial_s < 2 * RESTART_S
        # Other devices must not wait until the server's own is free, nor its slots for each other.
        if statistics.slots_elsewhere or slots - statistics.slots_resident > 1:
            wait_s = math.inf
    if wait_s <= MAX_WAIT_SHARE * trial_s:
        return 0
    return (2 if is_short else 1) * math.ceil(slots)


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
