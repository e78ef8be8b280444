"""What a study took of the machine, and what it waited for: from its trials and events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from localhpo.store.records import WAITS, Event
from localhpo.trial import Trial

_STOPPED = "the user stopped it"
_CAUSES = (*WAITS, "user")


@dataclass(frozen=True, slots=True)
class Accounts:
    """Sums over a study; None for what nobody measured."""

    gpu_s: float | None = None
    """Seconds of trials, times the GPUs they held."""
    gpu_utilization: float | None = None
    """Mean over those seconds, 0 to 1."""
    energy_j: float | None = None
    """Of the trials' devices, without the model's part of them."""
    model_gpu_s: float | None = None
    """Seconds in which the model held memory of a device, times the devices."""
    model_gpu_memory_mb: float | None = None
    """At its peak."""
    model_energy_j: float | None = None
    """Its part of the energy of its devices."""
    waited_s: Mapping[str, float] = field(default_factory=dict)
    """Cause -> seconds in which a slot or a trial waited: device, memory, what another study holds
    (cpus, gpus), another study's turn, model, its loading, user."""
    waited_by_trial: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Number -> the same, before the trial started."""


def accounts(trials: Sequence[Trial], events: Iterable[Event]) -> Accounts:
    """Return the accounts of a study."""
    events = list(events)
    books = [event for event in events if event.kind == "accounts"]
    waited = _sums([event.data.get("waited_s", {}) for event in books])
    if user_s := _user_s(events):
        waited["user"] = user_s
    peaks = [event.data.get("model_gpu_memory_mb") for event in books]
    shares = [
        (t.usage.gpu_utilization, t.usage.gpu_s)
        for t in trials
        if t.usage.gpu_utilization is not None and t.usage.gpu_s
    ]
    weight = sum(seconds for _, seconds in shares)
    return Accounts(
        gpu_s=_total([t.usage.gpu_s for t in trials]),
        gpu_utilization=sum(u * s for u, s in shares) / weight if weight else None,
        energy_j=_total([t.usage.energy_j for t in trials]),
        model_gpu_s=_total([event.data.get("model_gpu_s") for event in books]),
        model_gpu_memory_mb=max((p for p in peaks if p is not None), default=None),
        model_energy_j=_total([event.data.get("model_energy_j") for event in books]),
        waited_s=waited,
        waited_by_trial=_by_trial(books),
    )


def _by_trial(books: Sequence[Event]) -> dict[int, dict[str, float]]:
    numbers = {event.trial for event in books if event.trial is not None}
    found = {
        number: _sums([e.data.get("waited_s", {}) for e in books if e.trial == number])
        for number in sorted(numbers)
    }
    return {number: waited for number, waited in found.items() if waited}


def _sums(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    sums = {cause: sum(part.get(cause, 0.0) for part in parts) for cause in _CAUSES}
    return {cause: seconds for cause, seconds in sums.items() if seconds}


def _user_s(events: Sequence[Event]) -> float:
    """Return the seconds from each stop by the user to the run that went on."""
    waited_s = 0.0
    stopped: float | None = None
    for event in events:
        if event.kind == "ended":
            stopped = event.time if event.message.startswith(_STOPPED) else None
        elif event.kind == "begun" and stopped is not None:
            waited_s, stopped = waited_s + max(0.0, event.time - stopped), None
    return waited_s


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
