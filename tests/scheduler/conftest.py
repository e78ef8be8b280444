"""A bench for the loop: scripted trials, a counting Creator, a recorder that can die.

Time is simulated, so that a study of hours takes milliseconds and is the same every time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.creator.protocol import History
from localhpo.executor.clock import SimulatedClock
from localhpo.executor.protocol import Job, Outcome, Run
from localhpo.executor.simulated import Replay, SimulatedExecutor
from localhpo.resources.placement import Inventory
from localhpo.scheduler.loop import Loop, LoopSettings, StoredStudy
from localhpo.scheduler.running_trials import ExecutionTarget
from localhpo.scheduler.trial_table import TrialTable
from localhpo.store.records import Event
from localhpo.task import Task
from localhpo.trial import (
    COUNTED,
    USER,
    Config,
    Failure,
    Measurement,
    Origin,
    Proposal,
    State,
    Trial,
)

ENGINE = Origin(engine="test")


class DeadError(BaseException):
    """The process was killed: no handler of the product may catch this."""


@dataclass(frozen=True)
class TrialScript:
    """The course of a trial that is not stopped."""

    duration_s: float = 10.0
    curve: Sequence[float] = (1.0,)
    """Values of the metric, spread evenly over the duration."""
    failure: Failure | None = None
    ends_after_s: float = 0.3
    """After it is asked to stop."""


class ScriptedRun:
    """A simulated run that takes a moment to end when it is asked to, as a process does."""

    def __init__(self, run: Run, clock: SimulatedClock, ends_after_s: float) -> None:
        self._run = run
        self._clock = clock
        self._ends_after_s = ends_after_s
        self._asked: tuple[float, State] | None = None

    @property
    def outcome(self) -> Outcome | None:
        self._die()
        return self._run.outcome

    def poll(self) -> Sequence[Measurement]:
        self._die()
        return self._run.poll()

    def stop(self, state: State) -> None:
        self._asked = self._asked or (self._clock.monotonic() + self._ends_after_s, state)

    def _die(self) -> None:
        if self._asked is not None and self._clock.monotonic() >= self._asked[0]:
            self._run.stop(self._asked[1])


class ScriptedExecutor:
    """Runs scripted trials, and counts how many run at once."""

    def __init__(self, clock: SimulatedClock, script: Callable[[Job], TrialScript]) -> None:
        self.jobs: list[Job] = []
        self.runs: list[ScriptedRun] = []
        self.max_running = 0
        self._clock = clock
        self._script = script
        self._executor = SimulatedExecutor(lambda config, seed: self._replay(), clock)

    @property
    def running_now(self) -> int:
        return sum(run.outcome is None for run in self.runs)

    def start(self, job: Job) -> ScriptedRun:
        self.jobs.append(job)
        run = self._executor.start(job)
        self.runs.append(ScriptedRun(run, self._clock, self._script(job).ends_after_s))
        self.max_running = max(self.max_running, self.running_now)
        return self.runs[-1]

    def close(self) -> None:
        self._executor.close()

    def _replay(self) -> Replay:
        job = self.jobs[-1]
        script = self._script(job)
        pause = script.duration_s / max(1, len(script.curve))
        measurements = [
            Measurement(step, job.task.metric, value, pause * (step + 1))
            for step, value in enumerate(script.curve)
        ]
        return Replay(measurements, script.duration_s, script.failure)


class CountingCreator:
    """Proposes a learning rate that grows with the number, and stores its calls."""

    name = "counting"
    backend = None

    def __init__(self, most: int = 100, raises: Mapping[int, Exception] | None = None) -> None:
        self.most = most
        """Of one call."""
        self.raises = raises or {}
        """Next number -> what to raise."""
        self.shown: list[tuple[History, int]] = []

    def propose(self, history: History, n: int) -> list[Proposal]:
        self.shown.append((history, n))
        if history.next_number in self.raises:
            raise self.raises[history.next_number]
        taken = {trial.config["learning_rate"] for trial in history.trials}
        rates = ((k + 1) / 1000 for k in itertools.count(history.next_number))
        new = itertools.islice((rate for rate in rates if rate not in taken), min(n, self.most))
        return [Proposal({"learning_rate": rate, "depth": 1}, ENGINE) for rate in new]

    def close(self) -> None:
        pass


class MemoryRecorder:
    """Stores everything in memory, checks each change, and can die at any moment."""

    def __init__(self) -> None:
        self.trials: dict[int, Trial] = {}
        self.ends: list[int] = []
        """Numbers of trials in the order of their counted ends."""
        self.events: list[Event] = []
        self.flushes = 0
        self.locked = False
        self.dies_in: int | None = None
        """So many calls from now."""

    def write_trial(self, trial: Trial) -> None:
        self._live()
        known = self.trials.get(trial.number)
        if known is None:
            assert trial.number == len(self.trials), "numbers have no gap"
            assert trial.state is State.QUEUED, "a trial is queued before anything else"
        elif trial.state is not known.state:
            known.to(trial.state)  # raises for an impossible step
        self.trials[trial.number] = trial
        if trial.state in COUNTED:
            self.ends.append(trial.number)

    def write_measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        self._live()
        known = self.trials[number]
        assert known.state is State.RUNNING
        both = known.measurements + tuple(measurements)
        self.trials[number] = known.with_(measurements=both)

    def write_event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._live()
        self.events.append(Event(0.0, kind, message, trial, data or {}))

    def flush(self, *, wait_s: float = 0.0) -> bool:
        self._live()
        self.flushes += 1
        return not self.locked

    def messages(self, kind: str) -> list[str]:
        return [event.message for event in self.events if event.kind == kind]

    def _live(self) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                raise DeadError


class HookedClock(SimulatedClock):
    """A simulated clock that does something at each turn of the loop."""

    def __init__(self) -> None:
        super().__init__(start=1_000.0)
        self.on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.on_sleep()
        super().sleep(seconds)


SETTINGS = LoopSettings(poll_s=0.25, concurrent_proposals=False)


@dataclass
class LoopBench:
    """All that a loop needs; `loop` makes one process's run of the study."""

    task: Task
    script: Callable[[Job], TrialScript] = lambda job: TrialScript()
    creator: Any = field(default_factory=CountingCreator)
    recorder: MemoryRecorder = field(default_factory=MemoryRecorder)
    settings: LoopSettings = SETTINGS
    cpus: int = 8
    observers: Sequence[Any] = ()

    def __post_init__(self) -> None:
        self.clock = HookedClock()
        self.executor = ScriptedExecutor(self.clock, self.script)

    def loop(self, **changes: Any) -> Loop:
        """A new process: its own executor and clock, what is recorded is all it knows.

        Changes are fields of the target or of the stored study, or `observers`.
        """
        self.__post_init__()
        self.recorder.dies_in = None
        target: dict[str, Any] = {
            "executor": self.executor,
            "inventory": Inventory(cpus=self.cpus),
            "trial_folder": lambda number: Path("trials") / str(number),
            "clock": self.clock,
        }
        known = tuple(self.recorder.trials.values())
        table = TrialTable(known, recorder=self.recorder, clock=self.clock, seed=7)
        study = {name: changes.pop(name) for name in ("spent", "read_enqueued") if name in changes}
        observers = changes.pop("observers", self.observers)
        return Loop(
            self.task,
            self.creator,
            ExecutionTarget(**{**target, **changes}),
            StoredStudy(table, **study),
            observers=observers,
            settings=self.settings,
        )

    def interrupt_at(self, loop: Loop, seconds: float, times: int = 1) -> None:
        def interrupt_when_due() -> None:
            if self.clock.monotonic() >= seconds:
                self.clock.on_sleep = lambda: None
                for _ in range(times):
                    loop.interrupt()

        self.clock.on_sleep = interrupt_when_due

    def run(self, **changes: Any) -> tuple[Trial, ...]:
        return self.loop(**changes).run()


class Fakes:
    """Fake classes and proposals for tests."""

    TrialScript = TrialScript
    Creator = CountingCreator
    Recorder = MemoryRecorder
    DeadError = DeadError

    @staticmethod
    def user_proposal(**config: Any) -> Proposal:
        values: Config = {"learning_rate": 0.05, "depth": 3, **config}
        return Proposal(values, USER)


@pytest.fixture
def fakes() -> type[Fakes]:
    return Fakes


@pytest.fixture
def make_bench(make_task: Callable[..., Task]) -> Callable[..., LoopBench]:
    """Return a maker of benches: trials and slots, and any field of the bench by name."""

    def make(*, trials: int | None = 4, parallel: int = 1, **changes: Any) -> LoopBench:
        task = changes.pop("task", None) or make_task()
        task = replace(
            task,
            budget=replace(task.budget, trials=trials),
            resources=replace(task.resources, parallel=parallel),
        )
        return LoopBench(task, **changes)

    return make
