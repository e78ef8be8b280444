"""Studies on the device: one that runs out of memory, one that shares it with the model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from localhpo import Study
from localhpo.analysis.accounting import accounts
from localhpo.creator import open_creator
from localhpo.errors import NoGoodTrialError
from localhpo.scheduler.memory import Estimator, Wall, observations
from localhpo.store import Event
from localhpo.task import Task, parse
from localhpo.trial import Cause, State, Trial
from scripts.gpu_smoke.device import CONTEXT_MB, PROGRAMS, Bench
from scripts.gpu_smoke.model import Model
from scripts.gpu_smoke.verdict import SkippedError, must

BUSY = 0.1
"""Share at the least: trials spend some of their time on imports."""
RESERVED_MB = 3072
"""What the task declares for each of two trials beside the model."""
SPACE = {"mb": {"type": "int", "low": 256, "high": 1024}}
"""What `train` holds, in MB; `greedy` does not heed it."""


def greedy(bench: Bench) -> str:
    """A trial that asks for more than the device has."""
    task = make_task("greedy", "random", SPACE, {"gpus": 1})
    with Study.open(task, home=bench.folder / "home") as study:
        with contextlib.suppress(NoGoodTrialError):
            study.run()
        return judge_greedy(study.trials, bench.reading().total_mb)


def judge_greedy(trials: Sequence[Trial], total_mb: float) -> str:
    """Return a sentence on how the trial that ran out of memory was recorded.

    Raises:
        FailedError: not as a failure of that cause, without score, with its peak.
    """
    (trial,) = trials
    cause = trial.failure.cause if trial.failure else None
    peak_mb = trial.usage.peak_gpu_memory_mb
    sentence = (
        f"recorded as {trial.state}, {cause}, score {trial.score}, peak"
        f" {'unknown' if peak_mb is None else f'{peak_mb:.0f} MB'} of {total_mb:.0f} MB"
    )
    bounds = [one.at_least for one in observations(trials, "device")]
    return must(
        trial.state is State.FAILED
        and cause is Cause.OUT_OF_MEMORY_DEVICE
        and trial.score is None
        and peak_mb is not None
        and peak_mb > total_mb / 2
        and bounds == [True],
        sentence,
    )


def beside(bench: Bench, model: Model) -> str:
    """Two trials at once beside the model."""
    need_mb = 2 * RESERVED_MB + 2 * CONTEXT_MB
    free_mb = bench.reading().total_mb - bench.reading().used_mb
    if free_mb < need_mb:
        raise SkippedError(f"it takes {need_mb:.0f} MB free, and there are {free_mb:.0f}")
    resources = {"gpus": 0.5, "parallel": 2, "gpu_memory_mb": RESERVED_MB}
    task = make_task("train", "agent", SPACE, resources, trials=4)
    with (
        contextlib.closing(open_creator(task, backend=model.backend)) as creator,
        Study.open(task, home=bench.folder / "home", creator=creator) as study,
    ):
        study.run()
        return judge_beside(study.trials, study.events, task)


def judge_beside(trials: Sequence[Trial], events: Sequence[Event], task: Task) -> str:
    """Return a sentence on trials that shared the device.

    Raises:
        FailedError: one failed, never two ran at once, one took more than was reserved, what
            they took is not measured or not learned, or the device was hardly ever busy.
    """
    states = [str(trial.state) for trial in trials]
    must(set(states) == {"complete"}, f"trials ended as {', '.join(states)}")
    origins = {trial.proposal.origin for trial in trials}
    must("model" in origins, f"the model proposed nothing: {', '.join(sorted(origins))}")
    most = most_at_once(trials)
    must(most == 2, f"at most {most} of the trials ran at once")
    return f"{len(trials)} trials, {most} at once; {_memory(trials, task)}; {_busy(trials, events)}"


def _busy(trials: Sequence[Trial], events: Sequence[Event]) -> str:
    """Hold the share of time in which the device computed against the least."""
    books = accounts(trials, events)
    modes = [str(event.data["mode"]) for event in events if "mode" in event.data]
    if books.gpu_utilization is None:
        raise SkippedError("trials ran beside the model, but how busy the device was is not told")
    return must(
        books.gpu_utilization >= BUSY,
        f"busy {books.gpu_utilization:.0%} of the time that trials held it;"
        f" sharing: {', '.join(modes) or 'resident, in this process'};"
        f" the model took {books.model_gpu_memory_mb or 0.0:.0f} MB",
    )


def _memory(trials: Sequence[Trial], task: Task) -> str:
    """Hold what was reserved for trials, and what would be, against what they took."""
    told = []
    for trial in trials:
        peak_mb, own_mb = trial.usage.peak_gpu_memory_mb, _reserved_mb(trial)
        if peak_mb is None:
            raise SkippedError(
                "trials ran beside the model, but what each one takes of a shared device cannot be"
                " told here (the driver names no processes)"
            )
        told.append(f"{own_mb:.0f}->{peak_mb:.0f}")
        fits = own_mb <= peak_mb + 1 and peak_mb <= min(RESERVED_MB, own_mb + CONTEXT_MB)
        must(fits, f"torch reserved {own_mb:.0f} MB, the meter says {peak_mb:.0f}")
    evidence = observations(trials, "device")
    estimator = Estimator(task.space, Wall(None))
    estimates = [estimator.estimate(seen.config, evidence).mb or 0.0 for seen in evidence]
    short = [s.peak_mb for s, mb in zip(evidence, estimates, strict=True) if mb < s.peak_mb]
    must(not short, f"the estimate learned from them is too little for peaks of {short} MB")
    return f"MB by torch->meter {' '.join(told)}, estimates {min(estimates):.0f} and more"


def _reserved_mb(trial: Trial) -> float:
    return max(m.value for m in trial.measurements if m.name == "reserved_mb")


def most_at_once(trials: Sequence[Trial]) -> int:
    """Return how many of the trials ran at the same time, at most."""
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
        # An engine that stands in for the model would hide that it fails.
        "creator": {"name": creator, "on_model_error": "stop"},
    }
    return parse(table, folder=PROGRAMS)
