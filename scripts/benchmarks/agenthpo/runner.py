"""Runs the missing studies of the experiment, several at a time.

Everything is kept in the home of these studies: a run that was killed continues where it stopped,
and a completed training is not run again (`training_cache`). The name of a study has a hash of the
Creator and of the version of the task, so no stale study is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localhpo.data import VARIABLE
from localhpo.errors import InputError, NoGoodTrialError, StudyInterruptedError
from localhpo.executor import Executor, ProcessExecutor, SimulatedExecutor
from localhpo.executor.clock import RealClock
from localhpo.store import Store, study_name
from localhpo.study import Study
from localhpo.study.checks import check_script
from localhpo.task import Task
from localhpo.trial import COUNTED, Trial
from scripts.benchmarks import creators, pool, simulation
from scripts.benchmarks.agenthpo.subjects import Subject, open_subject
from scripts.benchmarks.agenthpo.training_cache import CachingExecutor, TrainingCache
from scripts.benchmarks.creators import CreatorChoice
from scripts.benchmarks.pool import FailedCall, PoolCall, ProgressCallback

RANDOM = creators.parse_name("random")
"""Creator whose trials are the baseline for a human."""


_open = functools.cache(open_subject)
_creator_digest = functools.cache(creators.compute_digest)  # reads the files of a model


@dataclass(frozen=True)
class ExperimentPlan:
    """Which studies to run."""

    tasks: tuple[str, ...]
    """Names of ready tasks, paths of task files, and names of the quadratics."""
    creators: tuple[CreatorChoice, ...]
    runs: int
    trials: int
    """Budget of a run."""
    best_of: int
    """Trials of random search whose best is the baseline for a human."""
    jobs: int
    """Number of studies that run at a time."""
    home: Path
    """Home of the studies and of the cached trainings."""
    data: Path | None = None
    """Folder with the data of the tasks."""
    small: bool = False

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The opened tasks. Raises as `open_subject`."""
        return tuple(_open(name, data=self.data, small=self.small) for name in self.tasks)

    @property
    def random_runs(self) -> int:
        """Number of runs of random search: more than `runs` where `best_of` takes more trials."""
        compared = self.runs if RANDOM in self.creators else 0
        return max(compared, math.ceil(self.best_of / self.trials))


@dataclass(frozen=True)
class RunKey:
    """One study: a task, a Creator and the number of the run."""

    index: int
    """Index of the task in the plan."""
    choice: CreatorChoice
    run: int


Studies = Mapping[RunKey, tuple[Trial, ...]]
"""The trials of each completed study, by number."""


def run_missing(
    plan: ExperimentPlan, on_progress: ProgressCallback
) -> tuple[Studies, list[FailedCall]]:
    """Run the missing studies; return all completed ones, and the calls that failed.

    Raises:
        InputError, TaskError: a task does not exist, cannot be run, or is given twice.
        DataError: data of a task are not on this machine.
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    _check(plan)
    wanted = list_runs(plan)
    done = {u: trials for u, trials in _stored(plan, wanted).items() if len(trials) == plan.trials}
    calls = [
        PoolCall(_describe(plan, unit), run_one, (plan, unit))
        for unit in wanted
        if unit not in done
    ]
    if not calls:
        return done, []
    environment = {} if plan.data is None else {VARIABLE: str(plan.data)}
    ended: list[RunKey] = []
    failed = pool.run_calls(
        calls,
        jobs=plan.jobs,
        on_result=ended.append,
        on_progress=on_progress,
        environment=environment,
    )
    return {**done, **_stored(plan, ended)}, failed


def _check(plan: ExperimentPlan) -> None:
    names = [subject.name for subject in plan.subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"each task must have a name of its own; there are several called {', '.join(twice)}",
            hint="change the `name` in one of the task files",
        )
    for subject in plan.subjects:
        if subject.function is None:
            check_script(subject.task)
            subject.files()


def list_runs(plan: ExperimentPlan) -> list[RunKey]:
    """Return all studies, run by run: an interrupted experiment has complete comparisons."""
    compared = [
        RunKey(index, choice, number)
        for number in range(plan.runs)
        for index in range(len(plan.subjects))
        for choice in plan.creators
    ]
    # The additional runs of random search come last, because they are not compared.
    alone = [
        RunKey(index, RANDOM, number)
        for index in range(len(plan.subjects))
        for number in range(plan.random_runs)
    ]
    return list(dict.fromkeys([*compared, *alone]))


def study_name_of(plan: ExperimentPlan, unit: RunKey) -> str:
    """Return the name of a study in the store."""
    subject = plan.subjects[unit.index]
    words = [subject.digest, unit.choice.name, _creator_digest(unit.choice)]
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:10]
    base = unit.choice.base.replace("+", "-")
    return study_name(subject.name, f"{base}-{digest}-{plan.trials}x{unit.run}")


def task_of(plan: ExperimentPlan, unit: RunKey) -> Task:
    """Return the task of a study; its seed is the same for every Creator."""
    task = plan.subjects[unit.index].task
    budget = dataclasses.replace(task.budget, trials=plan.trials, minutes=None, gpu_minutes=None)
    return dataclasses.replace(task, budget=budget, seed=simulation.study_seed(task.name, unit.run))


def _stored(plan: ExperimentPlan, wanted: Sequence[RunKey]) -> dict[RunKey, tuple[Trial, ...]]:
    """Return the trials that ended of those studies that exist."""
    store = Store(plan.home)
    known = {record.name for record in store.studies()}
    names = {unit: study_name_of(plan, unit) for unit in wanted}
    return {
        unit: tuple(trial for trial in store.trials(name) if trial.state in COUNTED)
        for unit, name in names.items()
        if name in known
    }


def _describe(plan: ExperimentPlan, unit: RunKey) -> str:
    return f"{unit.choice.name} on {plan.subjects[unit.index].name}, run {unit.run}"


# Functions that run in the processes of the pool.


def run_one(plan: ExperimentPlan, unit: RunKey) -> RunKey:
    """Run one study to its end; return its key.

    Raises:
        LocalHPOError: the study cannot continue.
    """
    try:
        _study(plan, unit)
    except NoGoodTrialError:
        pass  # a result as well
    except StudyInterruptedError:
        os._exit(130)  # this process must not start another study
    return unit


def _study(plan: ExperimentPlan, unit: RunKey) -> None:
    task = task_of(plan, unit)
    _, _, name = study_name_of(plan, unit).partition("/")
    creator = creators.make_creator(unit.choice, task, creators.process_backends().get(unit.choice))
    with (
        contextlib.closing(creator),
        contextlib.closing(_executor(plan, plan.subjects[unit.index])) as executor,
    ):
        Study.open(task, name, home=plan.home, creator=creator, executor=executor).run()


def _executor(plan: ExperimentPlan, subject: Subject) -> Executor:
    function = subject.function
    if function is not None:
        return SimulatedExecutor(
            lambda config, _: simulation.replay_trial(function, config), RealClock()
        )
    trainings = TrainingCache(plan.home / "trainings", subject.training_digest)
    return CachingExecutor(ProcessExecutor(), trainings)
