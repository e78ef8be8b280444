"""What a study used of the machine, what it waited for, and how it shared memory with its model.

All of it comes from the trials and the events of the study.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from localhpo.store.records import WAIT_TEXTS, Event
from localhpo.trial import Trial

_SUMS = "accounts"
"""Kind of the events that hold the sums of the scheduler."""
_STOPPED_BY_USER = "the user stopped it"
_WAIT_CAUSES = (*WAIT_TEXTS, "user")


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """Sums over a study; None for what was not measured."""

    gpu_s: float | None = None
    """Seconds of trials, times the GPUs that they held."""
    gpu_utilization: float | None = None
    """Mean over those seconds, from 0 to 1."""
    energy_j: float | None = None
    """Energy of the trials' devices, without the model's part."""
    model_gpu_s: float | None = None
    """Seconds in which the model held memory of a device, times the devices."""
    model_gpu_memory_mb: float | None = None
    """Peak of the model's GPU memory."""
    model_energy_j: float | None = None
    """The model's part of the energy of its devices."""
    waited_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds in which a slot or a trial waited, by cause: a key of `WAIT_TEXTS`, or `user` (the
    study was stopped by its user)."""
    waited_by_trial: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """The same by the number of the trial that started next."""


def sum_resource_use(trials: Sequence[Trial], events: Iterable[Event]) -> ResourceUse:
    """Return the sums over the trials and events of a study."""
    events = list(events)
    sums = [event for event in events if event.kind == _SUMS]
    waited = _sum_by_cause([event.data.get("waited_s", {}) for event in sums])
    if stopped_s := _stopped_s(events):
        waited["user"] = stopped_s
    peaks = [event.data.get("model_gpu_memory_mb") for event in sums]
    shares = [
        (t.usage.gpu_utilization, t.usage.gpu_s)
        for t in trials
        if t.usage.gpu_utilization is not None and t.usage.gpu_s
    ]
    total_s = sum(seconds for _, seconds in shares)
    return ResourceUse(
        gpu_s=sum_known([t.usage.gpu_s for t in trials]),
        gpu_utilization=sum(u * s for u, s in shares) / total_s if total_s else None,
        energy_j=sum_known([t.usage.energy_j for t in trials]),
        model_gpu_s=sum_known([event.data.get("model_gpu_s") for event in sums]),
        model_gpu_memory_mb=max((p for p in peaks if p is not None), default=None),
        model_energy_j=sum_known([event.data.get("model_energy_j") for event in sums]),
        waited_s=waited,
        waited_by_trial=_waited_by_trial(sums),
    )


def _waited_by_trial(sums: Sequence[Event]) -> dict[int, dict[str, float]]:
    numbers = {event.trial for event in sums if event.trial is not None}
    found = {
        number: _sum_by_cause([e.data.get("waited_s", {}) for e in sums if e.trial == number])
        for number in sorted(numbers)
    }
    return {number: waited for number, waited in found.items() if waited}


def _sum_by_cause(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    totals = {cause: sum(part.get(cause, 0.0) for part in parts) for cause in _WAIT_CAUSES}
    return {cause: seconds for cause, seconds in totals.items() if seconds}


def _stopped_s(events: Sequence[Event]) -> float:
    """Return the seconds between each stop by the user and the run that continued the study."""
    total_s = 0.0
    stopped_at: float | None = None
    for event in events:
        if event.kind == "ended":
            stopped_at = event.time if event.message.startswith(_STOPPED_BY_USER) else None
        elif event.kind == "begun" and stopped_at is not None:
            total_s, stopped_at = total_s + max(0.0, event.time - stopped_at), None
    return total_s


def sum_known(values: Sequence[float | None]) -> float | None:
    """Return the sum of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


_SHARING = "sharing"
"""Kind of the events: a decision has `mode` in its data, a change of the server `act`."""
_OFFLOADS = ("sleep", "stop", "leave")


@dataclass(frozen=True, slots=True)
class MemorySharing:
    """Sums over a study."""

    decisions: int
    """How often the mode of sharing was decided, the first time included."""
    last_decision: str
    """The last decision, with its reason; empty where there was none."""
    offloads: int
    """How often the server freed memory: put to sleep, stopped, or left to other studies."""
    offload_s: float
    """Seconds that the offloads took."""
    freed_mb: float | None
    """Memory freed by the last offload, as measured; None where it could not be measured."""
    reloads: int
    """How often the model was brought back to answer."""
    reload_s: float
    """Seconds that the reloads took."""


def sum_memory_sharing(events: Iterable[Event]) -> MemorySharing | None:
    """Return how memory was shared; None where there was nothing to share."""
    sharing = [event for event in events if event.kind == _SHARING]
    if not sharing:
        return None
    decisions = [event.message for event in sharing if "mode" in event.data]
    changes = [event for event in sharing if "act" in event.data]
    offloads = [event for event in changes if event.data["act"] in _OFFLOADS]
    reloads = [event for event in changes if event.data["act"] not in _OFFLOADS]
    return MemorySharing(
        decisions=len(decisions),
        last_decision=decisions[-1] if decisions else "",
        offloads=len(offloads),
        offload_s=_seconds(offloads),
        freed_mb=offloads[-1].data.get("freed_mb") if offloads else None,
        reloads=len(reloads),
        reload_s=_seconds(reloads),
    )


def _seconds(events: Sequence[Event]) -> float:
    return sum(float(event.data["seconds"]) for event in events)
