"""How trials and the model's server share memory: a pure function of numbers.

    resident   the server stays awake, trials run in what is left
    device     the server has a device of its own, trials run on the others
    sleep      the server sleeps while trials run that need its room; it wakes to propose
    stop       the same, by ending and starting it
    cpu        the model is in host memory, and trials have the devices

What is compared is the throughput, in trials per second, that each mode promises. A mode in
which a server rests has the more room and pays for it: where a proposal is needed, the slots on
the server's device stand still while it wakes, thinks and goes to rest again. As long as no
trial has shown its length, the server stays where it is, if any trial fits beside it; that costs
little, for the time that trials have run so far is a lower bound of their length, and is heard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from localhpo.task import Sharing

Mode = Literal["resident", "device", "sleep", "stop", "cpu"]

GAIN = 1.05
"""A mode must promise so many times what the present one does: estimates are not that good."""

WORTH = 0.05
"""Proposals are drawn ahead where waiting for them would take more than this of a trial."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is known when a mode is chosen."""

    beside: float
    """Trials at once while the server is awake, on average over their sizes, as all of these; 0
    where trials of some size cannot run then."""
    elsewhere: float
    """Of them, those on devices that are not the server's."""
    asleep: float | None
    """Trials at once while the server sleeps; None where it cannot."""
    stopped: float | None
    """Trials at once while it is stopped; None where it cannot be."""
    propose_s: float = 0.0
    """Of one question, seen."""
    sleep_s: float = 0.0
    """From awake to asleep and back, seen, or believed before the first time."""
    stop_s: float = 0.0
    """From awake to stopped and back."""
    trial_s: float | None = None
    """Mean length of the trials seen, at the least; None before the first."""
    left: int | None = None
    """Trials that will still be started; None for no bound."""
    contended: bool = True
    """Whether model and trials want the same memory at all."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A mode, and why."""

    mode: Mode
    reason: str


def decide(sharing: Sharing, numbers: Numbers, present: Mode | None = None) -> Decision:
    """Return the mode to go on with.

    Args:
        sharing: What the user chose.
        numbers: What is known.
        present: The mode so far; another must be better by `GAIN`.
    """
    if sharing != "auto":
        return _chosen(sharing, numbers)
    if not numbers.contended:
        return Decision("cpu", "model and trials hold different memory")
    awake: Mode = "device" if 0 < numbers.elsewhere == numbers.beside else "resident"
    possible = {awake: numbers.beside, "sleep": numbers.asleep, "stop": numbers.stopped}
    slots: dict[Mode, float] = {mode: n for mode, n in possible.items() if n}
    if not slots:
        return Decision(awake, "no trial fits, whatever the server does")
    if awake in slots and max(slots.values()) == numbers.beside:
        return Decision(
            awake, f"resting would make no room for more than {numbers.beside:.3g} at once"
        )
    if numbers.trial_s is None:
        return _before_any_trial(awake, slots, numbers)
    if present in slots and numbers.left is not None and numbers.left < 2 * slots[present]:
        return Decision(present, "too few trials are left for a change to pay")
    rates = {mode: per_s(mode, n, numbers) for mode, n in slots.items()}
    best = max(rates, key=lambda mode: rates[mode])
    if present in rates and rates[best] < GAIN * rates[present]:
        best = present
    return Decision(best, _compared(best, rates, slots, numbers))


def per_s(mode: Mode, slots: float, numbers: Numbers) -> float:
    """Return the trials per second that a mode promises, trials of a known length."""
    trial_s = numbers.trial_s or 0.0
    if mode not in ("sleep", "stop"):
        waits_s = 0.0 if ahead(mode, slots, numbers) else numbers.propose_s
        return min(slots / (trial_s + waits_s + _TINY_S), _most_per_s(numbers))
    pause_s = numbers.propose_s + _rest_s(mode, numbers)
    rounds = 2 if ahead(mode, slots, numbers) else 1
    pause_s += _drain_s(slots, numbers)
    if numbers.left is not None:  # what is drawn before the last rest needs no waking for
        rounds_left = math.ceil(numbers.left / slots)
        pause_s *= max(0.5, rounds_left - rounds) / max(1, rounds_left)
    at_home = max(0, slots - numbers.elsewhere)
    rate = (slots - at_home) / (trial_s + _TINY_S)
    rate += at_home / (trial_s + pause_s / rounds + _TINY_S)
    return min(rate, _most_per_s(numbers))


def _most_per_s(numbers: Numbers) -> float:
    """Return the proposals per second that the model can make at all."""
    n = max(numbers.beside, numbers.asleep or 0.0, numbers.stopped or 0.0)
    return n / (numbers.propose_s + _TINY_S)


def ahead(mode: Mode, slots: float, numbers: Numbers) -> int:
    """Return how many proposals to have in hand beyond those that free slots wait for.

    None where waiting for them costs next to nothing: a proposal made later knows more.
    """
    trial_s = numbers.trial_s
    if mode not in ("sleep", "stop"):
        if trial_s is None:  # the first proposals are for as many as any mode could run
            most = max(numbers.asleep or 0.0, numbers.stopped or 0.0)
            return math.ceil(max(0.0, most - slots))
        return math.ceil(slots) if numbers.propose_s > WORTH * trial_s else 0
    if numbers.elsewhere:  # other devices must not wait for the server's own to be free
        return math.ceil(slots)
    pause_s = numbers.propose_s + _rest_s(mode, numbers) + _drain_s(slots, numbers)
    return math.ceil(slots) if trial_s is not None and pause_s > WORTH * trial_s else 0


_TINY_S = 1e-3

_SPREAD = 0.25
"""Of the lengths of trials that were started together, in shares of their mean."""


def _rest_s(mode: Mode, numbers: Numbers) -> float:
    return numbers.sleep_s if mode == "sleep" else numbers.stop_s


def _drain_s(slots: float, numbers: Numbers) -> float:
    """Return how long slots stand empty until enough trials have ended for the server to wake.

    Nothing where the room of one trial is enough; else they differ by about `_SPREAD`.
    """
    must_end = slots - numbers.beside
    return 0.0 if must_end <= 1 else _SPREAD * (numbers.trial_s or 0.0)


def _chosen(sharing: Sharing, numbers: Numbers) -> Decision:
    """Return what the user chose, or the nearest thing that this server can do."""
    if sharing == "sleep" and numbers.asleep is None:
        if numbers.stopped is None:
            return Decision("resident", "sleep was chosen, but the model can make no room")
        return Decision("stop", "sleep was chosen, but the server cannot sleep, or frees nothing")
    if sharing == "stop" and numbers.stopped is None:
        return Decision("resident", "stop was chosen, but the model cannot be stopped")
    assert sharing != "auto"
    return Decision(sharing, "chosen by the user")


def _before_any_trial(awake: Mode, slots: dict[Mode, float], numbers: Numbers) -> Decision:
    if awake in slots:
        return Decision(
            awake, f"{numbers.beside:.3g} fit beside it, and no trial's length is known"
        )
    rest: Mode = "sleep" if "sleep" in slots else "stop"
    return Decision(rest, "no trial fits beside the server")


def _compared(
    best: Mode, rates: dict[Mode, float], slots: dict[Mode, float], numbers: Numbers
) -> str:
    promises = ", ".join(
        f"{mode} {3600 * rates[mode]:.4g} ({slots[mode]:.3g} at once)" for mode in sorted(rates)
    )
    return (
        f"{best}: trials an hour would be {promises}; a trial takes {numbers.trial_s:.3g} s or "
        f"more, a proposal {numbers.propose_s:.3g} s, sleeping and waking {numbers.sleep_s:.3g} s, "
        f"stopping and starting {numbers.stop_s:.3g} s"
    )
