"""Checks of studies on the device: out of memory, and sharing it with the model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from localhpo import Study
from localhpo.analysis.resource_use import sum_resource_use
from localhpo.creator import open_creator
from localhpo.errors import NoGoodTrialError
from localhpo.resources.memory import MemoryEstimator, MemoryLimit, read_observations
from localhpo.store import Event
from localhpo.task import Task, parse_task
from localhpo.trial import Cause, State, Trial
from scripts.gpu_smoke.device import CONTEXT_MB, PROGRAMS, Bench
from scripts.gpu_smoke.model import OpenedModel
from scripts.gpu_smoke.verdict import SkippedError, require

MIN_UTILIZATION = 0.1
"""Smallest accepted utilization: trials spend some of their time on imports."""
RESERVED_MB = 3072
"""Memory that the task declares for each of two trials beside the model."""
SPACE = {"mb": {"type": "int", "low": 256, "high": 1024}}
"""Memory that `train` holds, in MB; `allocate_too_much` ignores it."""


def check_out_of_memory(bench: Bench) -> str:
    """Run a trial that allocates more than the device has."""
    task = make_task("allocate_too_much", "random", SPACE, {"gpus": 1})
    with Study.open(task, home=bench.folder / "home") as study:
        with contextlib.suppress(NoGoodTrialError):
            study.run()
        return describe_out_of_memory(study.trials, bench.reading().total_mb)


def describe_out_of_memory(trials: Sequence[Trial], total_mb: float) -> str:
    """Return a sentence on the record of a trial that ran out of memory.

    Raises:
        FailedError: it is not a failure of that cause, without a value, with its peak.
    """
    (trial,) = trials
    cause = trial.failure.cause if trial.failure else None
    peak_mb = trial.usage.peak_gpu_memory_mb
    sentence = (
        f"recorded as {trial.state}, {cause}, value {trial.value}, peak"
        f" {'unknown' if peak_mb is None else f'{peak_mb:.0f} MB'} of {total_mb:.0f} MB"
    )
    bounds = [one.is_lower_bound for one in read_observations(trials, "device")]
    return require(
        trial.state is State.FAILED
        and cause is Cause.OUT_OF_MEMORY_DEVICE
        and trial.value is None
        and peak_mb is not None
        and peak_mb > total_mb / 2
        and bounds == [True],
        sentence,
    )


def check_shared_device(bench: Bench, model: OpenedModel) -> str:
    """Run two trials at once beside the model."""
    need_mb = 2 * RESERVED_MB + 2 * CONTEXT_MB
    free_mb = bench.reading().total_mb - bench.reading().used_mb
    if free_mb < need_mb:
        raise SkippedError(f"needs {need_mb:.0f} MB of free memory; {free_mb:.0f} MB are free")
    resources = {"gpus": 0.5, "parallel": 2, "gpu_memory_mb": RESERVED_MB}
    task = make_task("train", "agent", SPACE, resources, trials=4)
    with (
        contextlib.closing(open_creator(task, backend=model.backend)) as creator,
        Study.open(task, home=bench.folder / "home", creator=creator) as study,
    ):
        study.run()
        return describe_shared_device(study.trials, study.events, task)


def describe_shared_device(trials: Sequence[Trial], events: Sequence[Event], task: Task) -> str:
    """Return a sentence on trials that shared the device.

    Raises:
        FailedError: one failed, no two ran at once, one used more than was reserved, their memory
            is not measured or not learned from, or the device was hardly used.
    """
    states = [str(trial.state) for trial in trials]
    require(set(states) == {"complete"}, f"trials ended as {', '.join(states)}")
    origins = {trial.proposal.origin for trial in trials}
    require(
        any(origin.uses("llm") for origin in origins),
        f"no proposal is of the model: {', '.join(sorted(map(str, origins)))}",
    )
    most = count_most_at_once(trials)
    require(most == 2, f"at most {most} of the trials ran at once")
    memory = _check_memory(trials, task)
    return f"{len(trials)} trials, {most} at once; {memory}; {_check_utilization(trials, events)}"


def _check_utilization(trials: Sequence[Trial], events: Sequence[Event]) -> str:
    """Return a sentence on the utilization of the device."""
    use = sum_resource_use(trials, events)
    modes = [str(event.data["mode"]) for event in events if "mode" in event.data]
    if use.gpu_utilization is None:
        raise SkippedError("trials ran beside the model, but utilization is not reported here")
    return require(
        use.gpu_utilization >= MIN_UTILIZATION,
        f"utilization {use.gpu_utilization:.0%} while trials held the device;"
        f" sharing: {', '.join(modes) or 'resident, in this process'};"
        f" the model took {use.model_gpu_memory_mb or 0.0:.0f} MB",
    )


def _check_memory(trials: Sequence[Trial], task: Task) -> str:
    """Return a sentence on the memory of trials: allocated, metered, and estimated from it."""
    pairs = []
    for trial in trials:
        peak_mb, own_mb = trial.usage.peak_gpu_memory_mb, _reserved_mb(trial)
        if peak_mb is None:
            raise SkippedError(
                "trials ran beside the model, but their memory on a shared device cannot be"
                " measured here (the driver reports no processes)"
            )
        pairs.append(f"{own_mb:.0f}->{peak_mb:.0f}")
        fits = own_mb <= peak_mb + 1 and peak_mb <= min(RESERVED_MB, own_mb + CONTEXT_MB)
        require(fits, f"torch reserved {own_mb:.0f} MB, the meter says {peak_mb:.0f}")
    observations = read_observations(trials, "device")
    estimator = MemoryEstimator(task.space, MemoryLimit(None))
    estimates = [estimator.estimate(seen.config, observations).mb or 0.0 for seen in observations]
    short = [s.peak_mb for s, mb in zip(observations, estimates, strict=True) if mb < s.peak_mb]
    require(not short, f"estimates from these trials are too small for peaks of {short} MB")
    return f"MB by torch->meter {' '.join(pairs)}, estimates {min(estimates):.0f} and more"


def _reserved_mb(trial: Trial) -> float:
    return max(m.value for m in trial.measurements if m.name == "reserved_mb")


def count_most_at_once(trials: Sequence[Trial]) -> int:
    """Return the largest number of trials that ran at the same time."""
    spans = [(trial.started_at or 0.0, trial.finished_at or 0.0) for trial in trials]
    return max(sum(a <= begin < b for a, b in spans) for begin, _ in spans)


def make_task(
    program: str, creator: str, space: dict[str, Any], resources: dict[str, Any], trials: int = 1
) -> Task:
    """Return a task that runs one of the programs on the device."""
    table = {
        "task": {
            "name": program,
            "command": ["python", f"{program}.py"],
            "metric": "loss",
            "direction": "minimize",
        },
        "space": space,
        "budget": {"trials": trials, "timeout_s": 120},
        "resources": resources,
        # A fallback engine would hide that the model fails.
        "creator": {"name": creator, "on_model_error": "stop"},
    }
    return parse_task(table, folder=PROGRAMS)
