"""How trials and the model's server share memory: a pure function of numbers.

    resident   the server stays awake, trials run in what is left
    device     the server has a device of its own, trials run on the others
    sleep      the server sleeps while trials run that need its room; it wakes to propose
    stop       the same, by ending and starting it
    cpu        the model is in host memory, and trials have the devices

What is compared is how long the trials that are left would take in each mode. A mode in which
the server rests has the more room and pays for it: where proposals are needed, slots stand empty
until the server's device is free, and while it wakes, thinks and goes to rest again. What it costs
to change the mode counts too. Until a trial has ended, the longest that runs is a lower bound of
their length; `SHORTEST_S` is believed at once, for a short study is over before more is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from localhpo.scheduler.tenant import Rest
from localhpo.task import Sharing

Mode = Literal["resident", "device", "sleep", "stop", "cpu"]

Standing = Literal["awake", "asleep", "stopped"]
"""What the server does now."""

RESTING: Mapping[Rest, Standing] = {"sleep": "asleep", "stop": "stopped"}
"""A way to rest -> what the server does then."""

GAIN = 1.05
"""The present mode must take so many times as long as another, and half a trial longer: estimates
are not that good."""

SHORTEST_S = 10.0
"""A trial is believed to take this at the least until one has ended: to load a deep learning
library and its data takes about as long."""

WORTH = 0.02
"""Proposals are drawn ahead where waiting for them would take more than this of a trial."""

WORTH_ALONE = 0.05
"""The same for a single slot: what is drawn ahead misses the only result that there will be, which
sets a study back by a trial. Of 20 trials, waiting so long takes as much."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is known when a mode is chosen."""

    beside: float
    """Trials at once while the server is awake, as a mean over their sizes, like all of these; 0
    where trials of some size cannot run then."""
    elsewhere: float
    """Of them, those on devices that are not the server's."""
    asleep: float | None
    """Trials at once while the server sleeps; None where it cannot."""
    stopped: float | None
    """Trials at once while it is stopped; None where it cannot be."""
    propose_s: float = 0.0
    """Of one question, seen."""
    rest_s: Mapping[Rest, float] = field(default_factory=dict)
    """From awake to rest, by the way: seen, or believed before the first time."""
    back_s: Mapping[Rest, float] = field(default_factory=dict)
    """From there to awake."""
    trial_s: float | None = None
    """Mean length of the trials seen, at the least; None before the first is started."""
    results: int = 0
    """Trials that have ended."""
    left: int | None = None
    """Trials that will still be started; None for no bound."""
    in_hand: int = 0
    """Proposals for them that there are."""
    standing: Standing = "awake"
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
    slots: dict[Mode, float] = {
        mode: n for mode, n in possible.items() if n and (mode == awake or _rests(mode, n, numbers))
    }
    if not slots:
        return Decision(awake, "no trial fits, whatever the server does")
    if slots.keys() == {awake}:
        return Decision(
            awake, f"resting would make no room for more than {numbers.beside:.3g} at once"
        )
    if present in slots and numbers.left is not None and numbers.left <= numbers.in_hand:
        return Decision(present, "the server is not asked again")
    times_s = {mode: finish_s(mode, n, numbers) for mode, n in slots.items()}
    best = min(times_s, key=lambda mode: times_s[mode])
    if present in times_s:
        least_s = max(GAIN * times_s[best], times_s[best] + _trial_s(numbers) / 2)
        best = present if times_s[present] < least_s else best
    return Decision(best, _compared(times_s, slots, numbers))


def finish_s(mode: Mode, slots: float, numbers: Numbers) -> float:
    """Return how long the trials that are left would take in a mode."""
    left = _ENDLESS if numbers.left is None else numbers.left
    # They end one after another: on average the last one ends half a trial after the mean slot.
    work_s = _trial_s(numbers) * max(1.0, (left + (slots - 1) / 2) / slots)
    if _rests(mode, slots, numbers):
        return work_s + _pauses_s(mode, slots, numbers, left)
    asked = max(0, left - numbers.in_hand)
    if not _pays_ahead(mode, slots, numbers):
        work_s += numbers.propose_s * asked / slots
    wake_s = _wake_s(numbers) + _now_drains_s(numbers) if asked else 0.0
    # One question brings no more than a proposal for each slot, and as many ahead.
    return wake_s + max(work_s, numbers.propose_s * asked / (2 * slots))


def _pauses_s(way: Rest, slots: float, numbers: Numbers, left: int) -> float:
    """Return how long a slot stands empty, on average, for a server that rests.

    It is asked for a trial of each slot at once, or for two where they are drawn ahead. All slots
    wait until it has answered, and those on its own device until it rests again. Where trials run
    on other devices too, and the end of one makes room for it, the slot of that one waits, and the
    others where they have too little in hand.
    """
    share, at_once = 1.0, slots * (2 if _pays_ahead(way, slots, numbers) else 1)
    rests = max(0.0, slots - numbers.elsewhere) / slots
    waits_s = _drain_s(slots, numbers) + numbers.back_s[way] + numbers.propose_s
    others_s = 0.0
    if numbers.elsewhere and slots - numbers.beside <= 1:
        share = rests = (slots - numbers.beside) / slots
        home = slots - numbers.elsewhere
        at_once = 1 + home + slots / (home + 1)  # it is woken by the next end on its device
        in_hand_s = numbers.elsewhere * _trial_s(numbers) / numbers.beside
        others_s = (1 - share) * max(0.0, waits_s - in_hand_s)
    elif not numbers.elsewhere:  # trials that need not end for it go on meanwhile
        waits_s -= numbers.beside / slots * min(waits_s, _trial_s(numbers) / 2)
    rest_s = rests * numbers.rest_s[way]
    pause_s = share * waits_s + others_s + rest_s
    if numbers.standing == "awake":  # the first time it need not be woken
        asked = left - (numbers.in_hand or at_once)
        first_s = rest_s + (0.0 if numbers.in_hand else numbers.propose_s)
    else:
        asked = left - numbers.in_hand
        first_s = share * (_wake_s(numbers) - numbers.back_s[way]) if asked > 0 else 0.0
    return first_s + max(0, math.ceil(asked / at_once)) * pause_s


def ahead(mode: Mode, slots: float, numbers: Numbers) -> int:
    """Return how many proposals to have in hand beyond those that free slots wait for.

    None where waiting for them costs next to nothing: a proposal made later knows more. And none
    before the first result, unless slots on other devices would wait for the server's own.
    """
    rests_apart = _rests(mode, slots, numbers) and numbers.elsewhere > 0
    if numbers.trial_s is None or not (numbers.results or rests_apart):
        return 0
    return math.ceil(slots) if _pays_ahead(mode, slots, numbers) else 0


_ROUNDING = 1e-9  # of a mean

_ENDLESS = 1_000
"""So many trials are planned for where there is no bound."""


def _rests(mode: Mode, slots: float, numbers: Numbers) -> TypeGuard[Rest]:
    """Return whether the server makes room for trials: that it may does not say that it must."""
    return mode in RESTING and slots > numbers.beside * (1 + _ROUNDING)


def _trial_s(numbers: Numbers) -> float:
    return SHORTEST_S if numbers.trial_s is None else numbers.trial_s


def _wake_s(numbers: Numbers) -> float:
    """Return how long the server takes to be awake, from what it does now."""
    ways = {standing: way for way, standing in RESTING.items()}
    return numbers.back_s[ways[numbers.standing]] if numbers.standing in ways else 0.0


def _pays_ahead(mode: Mode, slots: float, numbers: Numbers) -> bool:
    """Return whether to wait for proposals would take more than a little of a trial."""
    waits_s = numbers.propose_s
    if _rests(mode, slots, numbers):
        if numbers.elsewhere:  # other devices must not wait for the server's own to be free
            return True
        waits_s += numbers.back_s[mode] + numbers.rest_s[mode] + _drain_s(slots, numbers)
    return waits_s > (WORTH if slots > 1 else WORTH_ALONE) * _trial_s(numbers)


def _drain_s(slots: float, numbers: Numbers) -> float:
    """Return how long a slot stands empty, on average, until the server has room to wake.

    Where `n` trials must end for it, which are anywhere in their course, the last of them ends
    after n / (n + 1) of a trial on average, and slots fall empty evenly until then.
    """
    must_end = slots - numbers.beside
    if must_end <= 1:
        return 0.0  # the one whose end is noticed
    return max(0.0, must_end) / (must_end + 2) * _trial_s(numbers) / 2


def _now_drains_s(numbers: Numbers) -> float:
    """Return the same for the server as it is now: nothing where it is awake."""
    now = {"awake": 0.0, "asleep": numbers.asleep, "stopped": numbers.stopped}[numbers.standing]
    return _drain_s(now or 0.0, numbers)


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


def _compared(times_s: Mapping[Mode, float], slots: Mapping[Mode, float], numbers: Numbers) -> str:
    promises = ", ".join(
        f"{mode} {times_s[mode]:.4g} s ({slots[mode]:.3g} at once)" for mode in sorted(times_s)
    )
    costs = ", ".join(
        f"{way} and back {numbers.rest_s[way] + numbers.back_s[way]:.3g} s"
        for way in RESTING
        if way in times_s
    )
    left = "1000 trials" if numbers.left is None else f"what is left, {numbers.left} trials,"
    return (
        f"{left} would take {promises}; a trial takes {_trial_s(numbers):.3g} s or more, "
        f"a proposal {numbers.propose_s:.3g} s, {costs}"
    )
