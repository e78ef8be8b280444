"""One study in simulated time: LocalHPO's own loop and decisions, on a given machine.

Simulated are the lengths of trials and the time in which a server answers, sleeps, wakes up, stops
and starts. Not simulated: trials on one device do not slow each other down, and nothing else uses
the bus or the host's memory.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.creator.protocol import History
from localhpo.errors import CreatorError
from localhpo.executor import Replay, SimulatedExecutor
from localhpo.executor.clock import SimulatedClock
from localhpo.objective import Objective
from localhpo.resources.placement import Assignment, Gpu, Inventory
from localhpo.scheduler.loop import Loop, LoopSettings, StoredStudy
from localhpo.scheduler.running_trials import ExecutionTarget
from localhpo.scheduler.trial_table import TrialTable
from localhpo.space import Int, Space
from localhpo.task import Budget, Resources, Sharing, Task
from localhpo.trial import COUNTED, Config, Measurement, Origin, Proposal, State, Trial
from scripts.benchmarks.sharing.model import SimulatedModel

GB = 1_000.0
"""Size of a GB in MB."""

ASLEEP_GB = 1.5
"""Memory that a sleeping server still holds: its context and compiled graphs."""

_SHARES = 4
"""Number of trials that may share one device, where memory allows."""

_SETTINGS = LoopSettings(concurrent_proposals=False, max_initial_failures=0, max_refusals=30)


@dataclass(frozen=True, slots=True)
class SimulationSetting:
    """A machine, a model on it, and the trials of a study."""

    gpus: int
    gpu_gb: float
    model_gb: float
    trial_gb: float | tuple[float, float]
    """Memory of each trial; of two values one is drawn at random for each trial."""
    trial_s: float
    """Mean length; the standard deviation is a fifth of it."""
    trials: int
    """Number of trials in the budget."""

    @property
    def sizes_gb(self) -> tuple[float, ...]:
        """Possible sizes of its trials."""
        return self.trial_gb if isinstance(self.trial_gb, tuple) else (self.trial_gb,)


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """Durations of a server by the size of its model.

    Weights are copied over the bus at 10 GB/s and read from a disk at 2 GB/s. A vLLM process takes
    half a minute before it loads anything.
    """

    model_gb: float

    @property
    def sleep_s(self) -> float:
        """Time to fall asleep, at level 1."""
        return 0.5 + self.model_gb / 10

    @property
    def wake_s(self) -> float:
        """Time to wake up and to fill the prefix cache again."""
        return 1.0 + self.model_gb / 10

    @property
    def start_s(self) -> float:
        """Time to start."""
        return 30.0 + self.model_gb / 2

    @property
    def stop_s(self) -> float:
        """Time to stop."""
        return 3.0

    def propose_s(self, n: int) -> float:
        """Return the time for `n` proposals, which share the prompt and are decoded together."""
        return 1.0 + self.model_gb / 10 + 0.2 * (n - 1)


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """Result of one study."""

    wall_s: float
    busy: float
    """Share of the devices' time in which trials held them, by their shares of a device."""
    ran: int
    refused: int
    """Number of proposals that could never run in this mode."""
    modes: tuple[str, ...]
    """Modes in the order in which they were chosen."""


def run_study(setting: SimulationSetting, sharing: Sharing, seed: int) -> SimulationResult:
    """Run one study to its end."""
    clock = EventClock()
    recorder = ModeRecorder()
    target = ExecutionTarget(
        executor=SimulatedExecutor(_make_replays(setting, clock), clock),
        trial_folder=lambda number: Path(f"trial-{number}"),  # nothing is written there
        inventory=Inventory(
            cpus=10_000,
            gpus=tuple(Gpu(str(i), memory_mb=setting.gpu_gb * GB) for i in range(setting.gpus)),
        ),
        clock=clock,
        loaded_model=_make_model(setting, clock),
        estimate_mb=TrialSizes(setting, seed).estimate,
    )
    loop = Loop(
        _make_task(setting, sharing),
        SimulatedCreator(clock, setting),
        target,
        StoredStudy(TrialTable((), recorder=recorder, clock=clock, seed=seed)),
        settings=_SETTINGS,
    )
    try:
        trials = loop.run()
    except CreatorError:  # none of the proposals can run here
        trials = ()
    ran = [trial for trial in trials if trial.state in COUNTED]
    held_s = sum(trial.usage.wall_s for trial in ran) / _SHARES
    wall_s = clock.monotonic()
    return SimulationResult(
        wall_s=wall_s,
        busy=held_s / (setting.gpus * wall_s) if ran else 0.0,
        ran=len(ran),
        refused=sum(trial.state is State.INFEASIBLE for trial in trials),
        modes=tuple(recorder.modes),
    )


class EventClock(SimulatedClock):
    """Skips to the next event of the simulation.

    It also stops in between, at growing intervals: until a trial has ended, a decision depends on
    how long it has run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._due: list[float] = []
        self._since = 0.0
        self._beside = False

    def expect_end(self, seconds: float) -> None:
        """Stop at the end of a trial, `seconds` from now."""
        heapq.heappush(self._due, self.monotonic() + seconds)

    def aside(self, work: Callable[[], None]) -> float:
        """Run work in parallel to everything else, and stop at its end."""
        self._beside = True
        try:
            end_s = super().aside(work)
        finally:
            self._beside = False
        heapq.heappush(self._due, end_s)
        return end_s

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass, or more while nothing happens."""
        if self._beside:
            return super().sleep(seconds)
        now = self.monotonic()
        while self._due and self._due[0] <= now:
            self._since = max(self._since, heapq.heappop(self._due))
        step_s = max(seconds, _GROWTH * (now - self._since))
        if self._due:
            step_s = min(step_s, self._due[0] - now)
        return super().sleep(step_s + _ROUNDING_S)


_GROWTH = 1.0
"""Interval between stops, relative to the time since the last event."""

_ROUNDING_S = 1e-6  # the sum of two times may be slightly less than the end of a trial


class SimulatedCreator:
    """Counts up its proposals, each in the time that a model of the setting's size takes."""

    name = "simulated"
    backend = None

    def __init__(self, clock: SimulatedClock, setting: SimulationSetting) -> None:
        self._clock = clock
        self._setting = setting
        self._numbers = itertools.count()

    def propose(self, history: History, n: int) -> list[Proposal]:  # noqa: ARG002 - the protocol's
        """Return `n` proposals."""
        self._clock.sleep(ServerTimes(self._setting.model_gb).propose_s(n))
        numbers = itertools.islice(self._numbers, n)
        return [Proposal({"x": number}, Origin.parse("llm")) for number in numbers]

    def close(self) -> None:
        """Do nothing."""


class TrialSizes:
    """Random sizes of trials, in the order in which trials are queued.

    The order of proposals would not do: some are dropped, depending on the mode, and a study must
    have the same trials in each mode.
    """

    def __init__(self, setting: SimulationSetting, seed: int) -> None:
        self._sizes_gb = setting.sizes_gb
        self._rng = random.Random(seed)
        self._drawn_mb: dict[int, float] = {}

    def estimate(self, config: Config) -> float:
        """Return the memory of a trial in MB; it is drawn when the trial is queued."""
        x = int(config["x"])
        if x not in self._drawn_mb:
            self._drawn_mb[x] = self._rng.choice(self._sizes_gb) * GB
        return self._drawn_mb[x]


class ModeRecorder:
    """A recorder that keeps only the modes."""

    def __init__(self) -> None:
        self.modes: list[str] = []

    def write_trial(self, trial: Trial) -> None:
        """Ignore it: the loop returns all trials."""

    def write_measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Ignore them."""

    def write_event(
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
        """Do nothing."""
        return True


def _make_replays(setting: SimulationSetting, clock: EventClock) -> Callable[[Config, int], Replay]:
    def replay(_: Config, trial_seed: int) -> Replay:  # a trial has the same length in each mode
        rng = random.Random(trial_seed)
        duration_s = setting.trial_s * max(0.3, rng.gauss(1.0, 0.2))
        clock.expect_end(duration_s)
        return Replay([Measurement(0, "loss", rng.random(), duration_s)], duration_s)

    return replay


def _make_model(setting: SimulationSetting, clock: SimulatedClock) -> SimulatedModel:
    times = ServerTimes(setting.model_gb)
    device = str(setting.gpus - 1)
    model_mb = setting.model_gb * GB
    return SimulatedModel(
        clock,
        assignment=Assignment(0.0, gpus=(device,), gpu_share=0.0, gpu_memory_mb=model_mb),
        asleep_mb=min(ASLEEP_GB * GB, 0.3 * model_mb),
        sleep_s=times.sleep_s,
        wake_s=times.wake_s,
        stop_s=times.stop_s,
        start_s=times.start_s,
    )


def _make_task(setting: SimulationSetting, sharing: Sharing) -> Task:
    return Task(
        name="simulated",
        command=(),
        objectives=(Objective("loss", "minimize"),),
        space=Space([Int("x", low=0, high=1_000_000)]),
        budget=Budget(trials=setting.trials),
        resources=Resources(
            parallel=_SHARES * setting.gpus, cpus=1.0, gpus=1.0 / _SHARES, sharing=sharing
        ),
    )
