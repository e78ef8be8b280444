"""How trials and the model's server share memory: a pure function of numbers.

    resident   the server stays awake, trials run in what is left
    device     the server has a device of its own, trials run on the others
    sleep      the server sleeps while trials run that need its room; it wakes to propose
    stop       the same, by ending and starting it
    cpu        the model is in host memory, and trials have the devices

What is compared is how long the trials that are left would take in each mode (`forecast`), from
what runs and what the server does now. A mode in which the server rests has the more room and pays
for it: where proposals are needed, slots stand empty until the server's device is free, and while
it wakes, thinks and goes to rest again. Until a trial has ended, the longest that runs is a lower
bound of their length; `SHORTEST_S` is believed at once, for a short study is over before more is
known. Before the first proposals nothing is decided: how large trials are and how long a question
takes is not known either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from localhpo.scheduler import forecast
from localhpo.scheduler.forecast import Plan
from localhpo.scheduler.placement import Assignment
from localhpo.scheduler.tenant import Rest
from localhpo.task import Sharing

Mode = Literal["resident", "device", "sleep", "stop", "cpu"]

Standing = Literal["awake", "asleep", "stopped"]
"""What the server does now."""

RESTING: Mapping[Rest, Standing] = {"sleep": "asleep", "stop": "stopped"}
"""A way to rest -> what the server does then."""

GAIN = 1.02
"""The present mode must take so many times as long as another: forecasts are not that good. Once
more for every change so far, or two modes that are as good as each other would take turns, at the
cost of changing. And once more before `FEW` trials have ended, where a way to rest and back takes
longer than a trial: by then more will be known.

What is gained beyond that is taken, for it is what `auto` may be worse than the best fixed way. At
1.05, and half a trial at the least, one slot more of 16 or 24 was forgone, which is 3 %
(`scripts.simulate_sharing`)."""

FEW = 3
"""The length of so many trials says how long the others will take; that of one does not."""

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
    most: Mapping[Mode, int] = field(default_factory=dict)
    """Trials at once, by mode, where all are of the smallest size: proposals are wanted for so
    many."""
    propose_s: float = 0.0
    """Of one question, seen; 0 before the first."""
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
    home_ages_s: Sequence[float] = ()
    """How long each trial on the server's device has run."""
    ages_s: Sequence[float] = ()
    """The same for the others."""
    contended: bool = True
    """Whether model and trials want the same memory at all."""

    @property
    def blank(self) -> bool:
        """Whether nothing is known yet: there is nothing to run, and nothing was asked."""
        return self.trial_s is None and not self.in_hand and not self.propose_s


@dataclass(frozen=True, slots=True)
class Decision:
    """A mode, and why."""

    mode: Mode
    reason: str


def decide(
    sharing: Sharing, numbers: Numbers, present: Mode | None = None, changes: int = 0
) -> Decision:
    """Return the mode to go on with.

    Args:
        sharing: What the user chose.
        numbers: What is known.
        present: The mode so far; another must be better by `GAIN`. The server begins awake.
        changes: How often it was changed; each makes the next one dearer.
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
    if awake in slots and numbers.blank:
        return Decision(awake, "the first proposals come before anything else")
    if present in slots and numbers.left is not None and numbers.left <= numbers.in_hand:
        return Decision(present, "the server is not asked again")
    times_s = {mode: finish_s(mode, n, numbers) for mode, n in slots.items()}
    present = awake if present is None else present
    hurdles = {mode: _hurdle(mode, numbers, changes) for mode in times_s if mode != present}
    best = min(times_s, key=lambda mode: times_s[mode] * hurdles.get(mode, 1.0))
    return Decision(best, _compared(times_s, slots, numbers))


def _hurdle(mode: Mode, numbers: Numbers, changes: int) -> float:
    """Return how many times as long the present mode must take."""
    away_s = numbers.rest_s[mode] + numbers.back_s[mode] if _is_rest(mode) else 0.0
    is_rash = numbers.results < FEW and away_s > _trial_s(numbers)
    return GAIN ** (1 + changes + is_rash)


def why_in_vain(chosen: Sharing, server: Assignment | None) -> str | None:
    """Return why a choice cannot be followed, whatever the numbers say; None where it can be.

    Args:
        chosen: By the user.
        server: What the model's server holds; None where there is none.
    """
    if chosen in ("auto", "resident"):
        return None
    if server is None:
        return "no server of a model runs that this study may put to rest and can measure"
    if chosen == "cpu" and server.gpus:
        return f"the model's server is on device {', '.join(server.gpus)}"
    if chosen == "device" and not server.gpus:
        return "the model's server is in host memory"
    return None


def finish_s(mode: Mode, slots: float, numbers: Numbers) -> float:
    """Return how long the trials that are left would take in a mode."""
    left = _ENDLESS if numbers.left is None else numbers.left
    return forecast.finish_s(_plan(mode, slots, numbers), left)


def _plan(mode: Mode, slots: float, numbers: Numbers) -> Plan:
    """Return the mode as whole slots, on the server's device and elsewhere.

    Where sizes are mixed, means are rounded, and trials are so much longer or shorter instead. A
    server that rests makes room for one more at the least: it never rests for nothing.
    """
    elsewhere = round(numbers.elsewhere)
    way = mode if _rests(mode, slots, numbers) else None
    whole = max(1, round(slots), elsewhere + 1 if way else elsewhere)
    home = beside = whole - elsewhere
    if way:
        beside = min(home - 1, round(numbers.beside - numbers.elsewhere))
    most = max(whole, numbers.most.get(mode, whole))
    trial_s = _trial_s(numbers)
    return Plan(
        beside=beside,
        home=home,
        elsewhere=elsewhere,
        slots=most,
        ahead=_ahead(mode, most, numbers),
        trial_s=trial_s * whole / slots,
        propose_s=numbers.propose_s,
        rest_s=numbers.rest_s[way] if way else 0.0,
        back_s=numbers.back_s[way] if way else 0.0,
        wake_s=_wake_s(way, numbers),
        in_hand=numbers.in_hand,
        home_ages_s=_in_steps(numbers.home_ages_s, trial_s),
        ages_s=_in_steps(numbers.ages_s, trial_s),
    )


def _in_steps(ages_s: Sequence[float], trial_s: float) -> tuple[float, ...]:
    step_s = max(trial_s, 1e-3) / _STEPS  # simulated trials may take no time
    return tuple(step_s * math.floor(age_s / step_s) for age_s in ages_s)


def ahead(mode: Mode, slots: float, numbers: Numbers) -> int:
    """Return how many proposals to have in hand beyond those that free slots wait for.

    None where waiting for them costs next to nothing: a proposal made later knows more. And none
    before the first result, unless slots on other devices would wait for the server's own: then
    one for each slot, for how long they will do is not known yet.
    """
    rests_apart = _rests(mode, slots, numbers) and numbers.elsewhere > 0
    if numbers.trial_s is None or not (numbers.results or rests_apart):
        return 0
    most = _ahead(mode, slots, numbers)
    return most if numbers.results else min(most, math.ceil(slots))


def _ahead(mode: Mode, slots: float, numbers: Numbers) -> int:
    """Return the same where something is known.

    What is in hand must last while one question is answered, and while the next one is: for half
    a trial that is a trial for each slot, and more than two would know too little.
    """
    if not _pays_ahead(mode, slots, numbers):
        return 0
    rounds = 2 * _waits_s(mode, slots, numbers) / _trial_s(numbers)
    return math.ceil(slots * min(max(1.0, rounds), _MOST_AHEAD))


_MOST_AHEAD = 2.0
"""Proposals drawn ahead are no more than so many times the slots."""

_ROUNDING = 1e-9  # of a mean

_STEPS = 10
"""A forecast takes the ages of trials in so many steps of their length."""

_ENDLESS = 1_000
"""So many trials are planned for where there is no bound."""


def _is_rest(mode: Mode) -> TypeGuard[Rest]:
    return mode in RESTING


def _rests(mode: Mode, slots: float, numbers: Numbers) -> TypeGuard[Rest]:
    """Return whether the server makes room for trials: that it may does not say that it must."""
    return _is_rest(mode) and slots > numbers.beside * (1 + _ROUNDING)


def _trial_s(numbers: Numbers) -> float:
    return SHORTEST_S if numbers.trial_s is None else numbers.trial_s


def _wake_s(way: Rest | None, numbers: Numbers) -> float:
    """Return how long the server takes to be awake the next time; 0 where it is.

    One that sleeps is stopped first where that is the way to rest.
    """
    ways = [rest for rest, standing in RESTING.items() if standing == numbers.standing]
    if ways and way:
        ways.append(way)
    return max((numbers.back_s[each] for each in ways), default=0.0)


def _pays_ahead(mode: Mode, slots: float, numbers: Numbers) -> bool:
    """Return whether to wait for proposals would take more than a little of a trial."""
    # Neither must other devices wait for the server's own to be free, nor slots of the same for
    # each other.
    if _rests(mode, slots, numbers) and (numbers.elsewhere or slots - numbers.beside > 1):
        return True
    worth = WORTH if slots > 1 else WORTH_ALONE
    return _waits_s(mode, slots, numbers) > worth * _trial_s(numbers)


def _waits_s(mode: Mode, slots: float, numbers: Numbers) -> float:
    """Return how long proposals take, from the server's device being free to its next trials."""
    waits_s = numbers.propose_s
    if _rests(mode, slots, numbers):
        waits_s += numbers.back_s[mode] + numbers.rest_s[mode]
    return waits_s


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
