"""An Executor whose trials are measured on their devices, and may get a second chance.

It stands between the loop and any other Executor, and adds two things to an outcome:

- what the trial took of its devices (`Usage.peak_gpu_memory_mb`, `gpu_s`, `gpu_utilization`,
  `energy_j`), where the Executor itself did not say;
- a trial that ran out of memory beside others ends as interrupted instead of failed: it runs
  again, once, under its own number, and does not count twice. Its failure stays with it until
  it does, so that `memory.again_alone` knows that it needs a device to itself.

Out of memory alone stays a failure. So does out of host memory under the task's own limit,
which has nothing to do with others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.scheduler.memory import runs_out
from localhpo.scheduler.meter import DeviceUse, Meter
from localhpo.trial import Measurement, State, Usage


class WatchedExecutor:
    """Runs trials by another Executor, whose opener closes it."""

    def __init__(self, executor: Executor, meter: Meter) -> None:
        self._executor = executor
        self._meter = meter
        self._again: set[int] = set()  # trials that had their second chance

    def start(self, job: Job) -> WatchedRun:
        """Start the trial.

        Raises:
            ExecutorError: as the Executor's own `start`.
        """
        devices = [id for id in job.env.get("CUDA_VISIBLE_DEVICES", "").split(",") if id]
        run = self._executor.start(job)
        self._meter.begin(job.folder.resolve(), devices)
        return WatchedRun(run, job, self._meter, self._again)

    def close(self) -> None:
        """End whatever still runs, as interrupted."""
        self._executor.close()


class WatchedRun:
    """A trial that is measured."""

    def __init__(self, run: Run, job: Job, meter: Meter, again: set[int]) -> None:
        """Watch a run that was started; `again` holds the trials that had a second chance."""
        self._run = run
        self._job = job
        self._meter = meter
        self._again = again
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        if self._outcome is None:
            self._meter.look()
            ended = self._run.outcome
            if ended is not None:
                self._outcome = self._conclude(ended)
        return self._outcome

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported since the last call."""
        return self._run.poll()

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask it to end."""
        self._run.stop(state)

    def _conclude(self, outcome: Outcome) -> Outcome:
        job, folder = self._job, self._job.folder.resolve()
        had_company = self._meter.had_company(folder)
        usage = _with_devices(outcome.usage, self._meter.end(folder), job.task.resources.gpus)
        outcome = dataclasses.replace(outcome, usage=usage)
        if had_company and job.number not in self._again and _for_want_of_room(outcome, job):
            self._again.add(job.number)
            return _once_more(outcome)
        return outcome


def _with_devices(usage: Usage, use: DeviceUse, gpus: float) -> Usage:
    """Return what a trial used, with what the meter saw; `gpus` is what it held of devices."""
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


def _for_want_of_room(outcome: Outcome, job: Job) -> bool:
    """Return whether a trial failed because others had the memory that it needed."""
    if outcome.state is not State.FAILED or outcome.failure is None:
        return False
    kind = runs_out(outcome.failure.cause)
    if kind == "device":
        return job.task.resources.gpus > 0
    return kind == "host" and job.memory_mb is None


def _once_more(outcome: Outcome) -> Outcome:
    failure = outcome.failure
    assert failure is not None
    message = f"{failure.message}, beside others; it runs again alone"
    return dataclasses.replace(
        outcome,
        state=State.INTERRUPTED,
        score=None,
        failure=dataclasses.replace(failure, message=message),
    )
