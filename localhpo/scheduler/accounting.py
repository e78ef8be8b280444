"""Accounting of a run: what each trial and the model used of the devices, and what was waited for.

`MeteredExecutor` wraps another Executor and completes its outcomes:

- what the trial used of its devices (`Usage.peak_gpu_memory_mb`, `gpu_s`, `gpu_utilization`,
  `energy_j`), where the Executor itself did not measure it;
- values and violations that depend on these measurements;
- a trial that ran out of memory beside others ends as interrupted instead of failed. It runs again,
  once, under its own number, and does not count twice. It keeps its failure until then, so that
  `memory.must_rerun_exclusively` knows that it needs a device to itself. A trial that ran out of
  memory alone stays failed. So does one that reached the task's own limit of host memory.

`UsageAccounting` records what the run waited for. While the Creator makes a proposal, a free slot
waits for the model. A queued trial waits for a running one to end while all slots are taken; while
a slot is free, it waits for what is short: memory, what another study uses, or its turn. Before all
that, the run waits for the model to load. (How long a study waited for its user lies between its
runs: `analysis` reads it from the events.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from localhpo.executor.clock import Clock
from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.objective import MEASURED_ON_DEVICES
from localhpo.resources.memory import find_exhausted_memory
from localhpo.resources.meter import DeviceUse, Meter
from localhpo.scheduler.events import Snapshot
from localhpo.store.records import WAIT_TEXTS, Event, WaitCause
from localhpo.trial import Cause, Failure, Measurement, State, Usage

ACCOUNTS = "accounts"
"""Kind of these events. Each covers the time since the one before, so that their data add up."""

_MIN_WAIT_S = 0.01
"""Shorter waits are not recorded."""


RecordEvent = Callable[[str, str, int | None, Mapping[str, Any]], object]
"""Stores an event: its kind, a sentence, the number of its trial, and data."""

_EVALUATED = (State.COMPLETE, State.PRUNED)


class MeteredExecutor:
    """Runs trials by another Executor, whose owner closes it, and completes their outcomes."""

    def __init__(self, executor: Executor, meter: Meter) -> None:
        self._executor = executor
        self._meter = meter
        self._retried: set[int] = set()  # numbers of trials that had their second chance

    def start(self, job: Job) -> MeteredRun:
        """Start the trial.

        Raises:
            ExecutorError: as the Executor's own `start`.
        """
        devices = [id for id in job.env.get("CUDA_VISIBLE_DEVICES", "").split(",") if id]
        run = self._executor.start(job)
        self._meter.begin(job.folder.resolve(), devices)
        return MeteredRun(run, job, self._meter, self._retried)

    def close(self) -> None:
        """End whatever still runs, as interrupted."""
        self._executor.close()


class MeteredRun:
    """A running trial whose devices are measured."""

    def __init__(self, run: Run, job: Job, meter: Meter, retried: set[int]) -> None:
        """Measure a run that was started; `retried` holds the trials that had a second chance."""
        self._run = run
        self._job = job
        self._meter = meter
        self._retried = retried
        self._reported: list[Measurement] = []
        self._polled = 0  # of those reported
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        if self._outcome is None:
            self._meter.refresh()
            ended = self._run.outcome
            if ended is not None:
                self._outcome = self._complete(ended)
        return self._outcome

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported since the last call."""
        self._reported.extend(self._run.poll())
        new = self._reported[self._polled :]
        self._polled = len(self._reported)
        return new

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask it to end."""
        self._run.stop(state)

    def _complete(self, outcome: Outcome) -> Outcome:
        """Add to an outcome what only the meter knows."""
        job, folder = self._job, self._job.folder.resolve()
        has_shared = self._meter.has_shared(folder)
        usage = _add_device_use(outcome.usage, self._meter.end(folder), job.task.resources.gpus)
        outcome = self._evaluate(dataclasses.replace(outcome, usage=usage))
        if has_shared and job.number not in self._retried and _lacked_memory(outcome, job):
            self._retried.add(job.number)
            return _retry(outcome)
        return outcome

    def _evaluate(self, outcome: Outcome) -> Outcome:
        """Evaluate again where an objective or constraint is measured on the devices."""
        task = self._job.task
        names = {objective.name for objective in task.objectives}
        names |= {constraint.name for constraint in task.constraints}
        if names.isdisjoint(MEASURED_ON_DEVICES) or outcome.state not in _EVALUATED:
            return outcome
        self._reported.extend(self._run.poll())
        found = task.evaluate(self._reported, outcome.usage)
        if found.missing and outcome.state is State.COMPLETE:
            message = f"{', '.join(found.missing)} could not be measured while the trial ran"
            return dataclasses.replace(
                outcome,
                state=State.FAILED,
                values=(),
                violations=(),
                failure=Failure(Cause.NOTHING_REPORTED, message),
                summary=f"{message}; {outcome.summary}",
            )
        return dataclasses.replace(outcome, values=found.values, violations=found.violations)


def _add_device_use(usage: Usage, use: DeviceUse, gpus: float) -> Usage:
    """Return a trial's usage, completed by what the meter measured; `gpus` is how many it held."""
    if not gpus:
        return usage
    peak_mb = usage.peak_gpu_memory_mb
    return dataclasses.replace(
        usage,
        gpu_s=usage.wall_s * gpus if usage.gpu_s is None else usage.gpu_s,
        peak_gpu_memory_mb=use.peak_mb if peak_mb is None else peak_mb,
        gpu_utilization=use.utilization if usage.gpu_utilization is None else usage.gpu_utilization,
        energy_j=use.energy_j if usage.energy_j is None else usage.energy_j,
    )


def _lacked_memory(outcome: Outcome, job: Job) -> bool:
    """Return whether a trial failed because others had the memory that it needed."""
    if outcome.state is not State.FAILED:
        return False
    kind = find_exhausted_memory(outcome.failure)
    if kind == "device":
        return job.task.resources.gpus > 0
    return kind == "host" and job.memory_mb is None


def _retry(outcome: Outcome) -> Outcome:
    """Return the outcome of a trial that failed beside others as an interruption."""
    failure = outcome.failure
    assert failure is not None
    message = f"{failure.message}, beside other programs or trials; it runs again alone"
    return dataclasses.replace(
        outcome,
        state=State.INTERRUPTED,
        values=(),
        violations=(),
        failure=dataclasses.replace(failure, message=message),
    )


def current_wait(snapshot: Snapshot) -> WaitCause | None:
    """Return what a free slot or the next trial waits for; None where nothing waits."""
    if snapshot.stop_reason:
        return None
    running = len(snapshot.running)
    if any(trial.state in (State.QUEUED, State.INTERRUPTED) for trial in snapshot.trials):
        return "device" if running >= snapshot.slots else snapshot.blocked_by
    return "model" if snapshot.proposing and running < snapshot.slots else None


class UsageAccounting:
    """An observer that records waiting times and the model's usage, per trial and at the end."""

    def __init__(
        self,
        record: RecordEvent,
        clock: Clock,
        model_use: Callable[[], DeviceUse],
        loading_s: float = 0.0,
    ) -> None:
        """Start to account for a run.

        Args:
            record: Stores the events.
            clock: Measures how long is waited.
            model_use: Returns what the model has used of the devices so far.
            loading_s: How long the model took to load before the run; 0 without a model.
        """
        self._record = record
        self._clock = clock
        self._model_use = model_use
        self._waiting: WaitCause | None = None
        self._since = clock.monotonic()
        self._waited_s: dict[WaitCause, float] = {"loading": loading_s}
        self._recorded_use = DeviceUse()

    def on_event(self, event: Event) -> None:
        """Record the usage so far with each trial that starts, and at the end."""
        if event.kind in ("started", "ended"):
            self._add_wait()
            self._write(event.trial)

    def on_change(self, snapshot: Snapshot) -> None:
        """Note what is waited for from now on."""
        self._add_wait()
        self._waiting = current_wait(snapshot)

    def _add_wait(self) -> None:
        now = self._clock.monotonic()
        if self._waiting is not None:
            self._waited_s[self._waiting] = self._waited_s.get(self._waiting, 0.0) + (
                now - self._since
            )
        self._since = now

    def _write(self, trial: int | None) -> None:
        waited_s = {cause: round(s, 3) for cause, s in self._waited_s.items() if s >= _MIN_WAIT_S}
        use, before = dataclasses.replace(self._model_use()), self._recorded_use
        gpu_s = use.gpu_s - before.gpu_s
        if not waited_s and not gpu_s:
            return
        data: dict[str, Any] = {"waited_s": waited_s}
        if gpu_s:
            data |= {"model_gpu_s": round(gpu_s, 3), "model_gpu_memory_mb": use.peak_mb}
        if use.energy_j is not None:
            data["model_energy_j"] = round(use.energy_j - (before.energy_j or 0.0), 3)
        waits = ", ".join(f"{s:.1f} s for {WAIT_TEXTS[cause]}" for cause, s in waited_s.items())
        self._record(ACCOUNTS, f"waited {waits}" if waits else "no waiting", trial, data)
        self._waited_s, self._recorded_use = {}, use
