"""An Executor that measures the devices of each trial, and gives some trials a second chance.

It wraps another Executor and completes its outcomes:

- what the trial used of its devices (`Usage.peak_gpu_memory_mb`, `gpu_s`, `gpu_utilization`,
  `energy_j`), where the Executor itself did not measure it;
- values and violations that depend on these measurements;
- a trial that ran out of memory beside others ends as interrupted instead of failed. It runs again,
  once, under its own number, and does not count twice. It keeps its failure until then, so that
  `memory.must_rerun_exclusively` knows that it needs a device to itself.

A trial that ran out of memory alone stays failed. So does one that reached the task's own limit of
host memory, whatever ran beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.objective import MEASURED_ON_DEVICES
from localhpo.resources.memory import find_exhausted_memory
from localhpo.resources.meter import DeviceUse, Meter
from localhpo.trial import Cause, Failure, Measurement, State, Usage

_EVALUATED = (State.COMPLETE, State.PRUNED)


class MeteredExecutor:
    """Runs trials by another Executor, whose owner closes it."""

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
    if outcome.state is not State.FAILED or outcome.failure is None:
        return False
    kind = find_exhausted_memory(outcome.failure.cause)
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
