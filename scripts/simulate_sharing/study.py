"""One study in simulated time: the product's own loop and decisions, on a machine that is given.

What is simulated: the length of trials, the time that a server takes to answer, to sleep, to
wake, to stop and to start. What is not: trials that share a device do not slow each other down,
and the bus and the host's memory are nobody else's.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.creator.protocol import History
from localhpo.errors import CreatorError
from localhpo.executor import Replay, SimulatedExecutor
from localhpo.executor.clock import SimulatedClock
from localhpo.scheduler.loop import Loop
from localhpo.scheduler.placement import Assignment, Gpu, Inventory
from localhpo.scheduler.settings import LoopSettings
from localhpo.scheduler.tenant import Simulated
from localhpo.space import Float, Space
from localhpo.task import Budget, Resources, Sharing, Task
from localhpo.trial import COUNTED, Config, Measurement, Proposal, State, Trial

GB = 1_000.0
"""In MB."""

ASLEEP_GB = 1.5
"""What a server still holds asleep: its context, its compiled graphs."""

_SHARES = 4
"""Trials that may share one device, memory allowing."""

_SETTINGS = LoopSettings(concurrent_proposals=False, hopeless_after=0, refusals=30)


@dataclass(frozen=True, slots=True)
class Setting:
    """A machine, a model on it, and the trials of a study."""

    gpus: int
    gpu_gb: float
    model_gb: float
    trial_gb: float | tuple[float, float]
    """Of each trial; two values for trials of both kinds, by turns of a fair coin."""
    trial_s: float
    """On average; lengths are spread by a fifth."""
    trials: int
    """That every one of them runs, where it can."""

    @property
    def sizes_gb(self) -> tuple[float, ...]:
        """The sizes of its trials."""
        return self.trial_gb if isinstance(self.trial_gb, tuple) else (self.trial_gb,)


@dataclass(frozen=True, slots=True)
class Times:
    """What a server of so many GB takes, in seconds.

    Weights go over the bus at 10 GB/s and come from a disk at 2 GB/s; a process of vLLM takes
    half a minute before it loads anything.
    """

    model_gb: float

    @property
    def sleep_s(self) -> float:
        """To sleep, level 1."""
        return 0.5 + self.model_gb / 10

    @property
    def wake_s(self) -> float:
        """To wake from it, and to fill the prefix cache again."""
        return 1.0 + self.model_gb / 10

    @property
    def start_s(self) -> float:
        """To start."""
        return 30.0 + self.model_gb / 2

    @property
    def stop_s(self) -> float:
        """To end."""
        return 3.0

    def question_s(self, n: int) -> float:
        """To answer with `n` proposals: they share the prompt and are decoded together."""
        return 1.0 + self.model_gb / 10 + 0.2 * (n - 1)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a study."""

    wall_s: float
    busy: float
    """Share of the devices' time in which trials held them, each by its share of the device."""
    ran: int
    refused: int
    """Proposals that could never run in this way of sharing."""
    modes: tuple[str, ...]
    """In the order in which they were taken up."""


def run(setting: Setting, sharing: Sharing, seed: int) -> Result:
    """Run one study to its end."""
    clock = LeapingClock()
    recorder = Events()
    loop = Loop(
        task=_task(setting, sharing),
        creator=Thinker(clock, setting, seed),
        executor=SimulatedExecutor(_trials(setting, clock), clock),
        recorder=recorder,
        trials=(),
        seed=seed,
        trial_folder=lambda number: Path(f"trial-{number}"),  # nobody writes there
        inventory=Inventory(
            cpus=10_000,
            gpus=tuple(Gpu(str(i), memory_mb=setting.gpu_gb * GB) for i in range(setting.gpus)),
        ),
        clock=clock,
        settings=_SETTINGS,
        tenant=_server(setting, clock),
        estimate=Sizes(setting, seed).estimate,
    )
    try:
        trials = loop.run()
    except CreatorError:  # nothing but proposals that cannot run here
        trials = ()
    ran = [trial for trial in trials if trial.state in COUNTED]
    held_s = sum(trial.usage.wall_s for trial in ran) / _SHARES
    wall_s = clock.monotonic()
    return Result(
        wall_s=wall_s,
        busy=held_s / (setting.gpus * wall_s) if ran else 0.0,
        ran=len(ran),
        refused=sum(trial.state is State.INFEASIBLE for trial in trials),
        modes=tuple(recorder.modes),
    )


class LeapingClock(SimulatedClock):
    """Leaps to the next thing that happens, where nothing happens until then.

    In between it stops at times that grow further apart, for what is decided by how long
    something has lasted: closely until a trial has ended, for how long they are is guessed by
    that alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._due: list[float] = []
        self._since = 0.0
        self._first_end_s = math.inf
        self._beside = False

    def expect_end(self, seconds: float) -> None:
        """Stop where a trial ends, so many seconds from now."""
        end_s = self.monotonic() + seconds
        heapq.heappush(self._due, end_s)
        self._first_end_s = min(self._first_end_s, end_s)

    def aside(self, work: Callable[[], None]) -> float:
        """Do work beside everything else, and stop at its end."""
        self._beside = True
        try:
            end_s = super().aside(work)
        finally:
            self._beside = False
        heapq.heappush(self._due, end_s)
        return end_s

    def sleep(self, seconds: float) -> None:
        """Let at least that much time pass, or the time until something happens."""
        if self._beside:
            return super().sleep(seconds)
        now = self.monotonic()
        while self._due and self._due[0] <= now:
            self._since = max(self._since, heapq.heappop(self._due))
        growth = _GROWTH_AT_FIRST if now <= self._first_end_s else _GROWTH
        leap_s = max(seconds, growth * (now - self._since))
        if self._due:
            leap_s = min(leap_s, self._due[0] - now)
        return super().sleep(leap_s + _ROUNDING_S)


_GROWTH_AT_FIRST, _GROWTH = 0.1, 3.0
"""A leap is so many times as long as it is since something happened."""

_ROUNDING_S = 1e-6  # the sum of two times may be a hair short of when a trial ends


class Thinker:
    """Proposes what the seed says, in the time that a model of the setting's size takes."""

    name = "thinker"

    def __init__(self, clock: SimulatedClock, setting: Setting, seed: int) -> None:
        self._clock = clock
        self._setting = setting
        self._rng = random.Random(seed)

    def propose(self, history: History, n: int) -> list[Proposal]:  # noqa: ARG002 - the protocol's
        """Return `n` proposals."""
        self._clock.sleep(Times(self._setting.model_gb).question_s(n))
        return [Proposal({"x": self._rng.random()}, "model") for _ in range(n)]

    def close(self) -> None:
        """Nothing is held."""


class Sizes:
    """How large each trial is: what the seed says, in the order in which trials are queued.

    Not in that of proposals: drafts are dropped, more of them the more are in hand, and the trials
    of a study are to be the same in each way of sharing.
    """

    def __init__(self, setting: Setting, seed: int) -> None:
        self._sizes_gb = setting.sizes_gb
        self._rng = random.Random(seed)
        self._drawn_mb: dict[float, float] = {}

    def estimate(self, config: Config) -> float:
        """Return the memory of a trial, drawn as it is first asked for: when it is queued."""
        x = float(config["x"])
        if x not in self._drawn_mb:
            self._drawn_mb[x] = self._rng.choice(self._sizes_gb) * GB
        return self._drawn_mb[x]


class Events:
    """A recorder that keeps the modes alone."""

    def __init__(self) -> None:
        self.modes: list[str] = []

    def trial(self, trial: Trial) -> None:
        """Forget it: the loop returns all trials."""

    def measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Forget them."""

    def event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,  # noqa: ARG002 - the protocol's
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the mode."""
        if kind == "sharing" and data and "mode" in data:
            self.modes.append(str(data["mode"]))
        if kind == "warning":
            raise AssertionError(message)

    def flush(self, *, wait_s: float = 0.0) -> bool:  # noqa: ARG002 - the protocol's
        """Have nothing to do."""
        return True


def _trials(setting: Setting, clock: LeapingClock) -> Callable[[Config, int], Replay]:
    def play(_: Config, trial_seed: int) -> Replay:  # the trial of a number is as long in each way
        rng = random.Random(trial_seed)
        duration_s = setting.trial_s * max(0.3, rng.gauss(1.0, 0.2))
        clock.expect_end(duration_s)
        return Replay([Measurement(0, "loss", rng.random(), duration_s)], duration_s)

    return play


def _server(setting: Setting, clock: SimulatedClock) -> Simulated:
    times = Times(setting.model_gb)
    home = str(setting.gpus - 1)
    model_mb = setting.model_gb * GB
    return Simulated(
        clock,
        holds=Assignment(0.0, gpus=(home,), gpu_share=0.0, gpu_memory_mb=model_mb),
        asleep_mb=min(ASLEEP_GB * GB, 0.3 * model_mb),
        sleep_s=times.sleep_s,
        wake_s=times.wake_s,
        stop_s=times.stop_s,
        start_s=times.start_s,
    )


def _task(setting: Setting, sharing: Sharing) -> Task:
    return Task(
        name="simulated",
        command=(),
        metric="loss",
        direction="minimize",
        space=Space([Float("x", low=0.0, high=1.0)]),
        budget=Budget(trials=setting.trials),
        resources=Resources(
            parallel=_SHARES * setting.gpus, cpus=1.0, gpus=1.0 / _SHARES, sharing=sharing
        ),
    )
