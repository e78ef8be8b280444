"""Runs the missing studies of the experiment (`runner.run_missing`), as ordinary studies.

The studies are kept in a home of their own, where a killed one continues, and a completed training
is not run again (`training_cache`); what is compared is stored beside the results of the suites.
The name of a study has a hash of the Creator and of the version of the task, so no stale study is
read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localhpo.data import VARIABLE
from localhpo.errors import InputError, NoGoodTrialError, StudyInterruptedError
from localhpo.executor import Executor, ProcessExecutor, SimulatedExecutor
from localhpo.executor.clock import RealClock
from localhpo.store import study_name
from localhpo.study import Study
from localhpo.study.checks import check_script
from localhpo.task import Task
from localhpo.trial import COUNTED, Trial
from scripts.benchmarks import creators, digests, runner, simulation
from scripts.benchmarks.agenthpo.subjects import Subject, open_subject
from scripts.benchmarks.agenthpo.training_cache import CachingExecutor, TrainingCache
from scripts.benchmarks.creators import CreatorChoice
from scripts.benchmarks.pool import FailedCall, ProgressCallback
from scripts.benchmarks.results import Results, UnitKey, UnitRow
from scripts.benchmarks.runner import PlannedStudy

RANDOM = creators.parse_name("random")
"""Creator whose trials are the baseline for a human."""

_open = functools.cache(open_subject)


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
    def subjects(self) -> Mapping[str, Subject]:
        """The opened tasks, by name.

        Raises:
            InputError: two tasks have the same name; or as `open_subject`.
        """
        opened = [_open(name, data=self.data, small=self.small) for name in self.tasks]
        names = [subject.name for subject in opened]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                f"each task must have a name of its own; there are several called "
                f"{', '.join(twice)}",
                hint="change the `name` in one of the task files",
            )
        return dict(zip(names, opened, strict=True))

    @property
    def random_runs(self) -> int:
        """Number of runs of random search: more than `runs` where `best_of` takes more trials."""
        compared = self.runs if RANDOM in self.creators else 0
        return max(compared, math.ceil(self.best_of / self.trials))


StudyKey = tuple[str, str, int]
"""A study by the names of its task and its Creator, and the number of its run."""

Studies = Mapping[StudyKey, UnitRow]
"""The completed studies."""


def run_experiment(
    plan: ExperimentPlan, results: Results, on_progress: ProgressCallback
) -> tuple[Studies, list[FailedCall]]:
    """Run the missing studies; return all completed ones, and the calls that failed.

    Raises:
        InputError, TaskError: a task does not exist, cannot be run, or is given twice.
        DataError: data of a task are not on this machine.
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    for subject in plan.subjects.values():
        if subject.function is None:
            check_script(subject.task)
            subject.files()
    studies = list_studies(plan)
    failed = runner.run_missing(
        studies,
        functools.partial(run_one, plan),
        results,
        jobs=plan.jobs,
        on_progress=on_progress,
        environment={} if plan.data is None else {VARIABLE: str(plan.data)},
    )
    rows = results.units(study.key for study in studies)
    return {(row.key.problem, row.key.creator, row.key.seed): row for row in rows}, failed


def list_studies(plan: ExperimentPlan) -> list[PlannedStudy]:
    """Return all studies, run by run; additional runs of random search, not compared, come last."""
    subjects = [(name, subject.digest) for name, subject in plan.subjects.items()]
    compared = runner.plan_studies(subjects, plan.creators, plan.runs, plan.trials)
    alone = runner.plan_studies(subjects, [RANDOM], plan.random_runs, plan.trials)
    return list(dict.fromkeys([*compared, *alone]))


def study_name_of(plan: ExperimentPlan, study: PlannedStudy) -> str:
    """Return the name of a study in the store."""
    key = study.key
    words = [key.problem_digest, key.creator, key.creator_digest]
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:10]
    base = study.choice.base.replace("+", "-")
    return study_name(key.problem, f"{base}-{digest}-{plan.trials}x{key.seed}")


def task_of(plan: ExperimentPlan, key: UnitKey) -> Task:
    """Return the task of a study; its seed is the same for every Creator."""
    task = plan.subjects[key.problem].task
    budget = dataclasses.replace(task.budget, trials=plan.trials, minutes=None, gpu_minutes=None)
    return dataclasses.replace(task, budget=budget, seed=simulation.study_seed(task.name, key.seed))


# Functions that run in the processes of the pool.


def run_one(plan: ExperimentPlan, study: PlannedStudy) -> UnitRow:
    """Run one study to its end, or read one that has ended.

    Raises:
        LocalHPOError: the study cannot continue.
    """
    try:
        trials = _run_study(plan, study)
    except StudyInterruptedError:
        os._exit(130)  # this process must not start another study
    task = plan.subjects[study.key.problem].task
    seconds = {trial.number: trial.proposal.seconds for trial in trials}
    rows = simulation.to_trial_rows(trials, task, seconds)
    wall_s = sum(row.training_s + row.seconds for row in rows)
    return UnitRow(study.key, digests.compute_model_digest(study.choice), wall_s, tuple(rows))


def _run_study(plan: ExperimentPlan, planned: PlannedStudy) -> list[Trial]:
    """Return the trials that ended."""
    task, choice = task_of(plan, planned.key), planned.choice
    _, _, name = study_name_of(plan, planned).partition("/")
    creator = creators.make_creator(choice, task, creators.process_backends().get(choice))
    executor = _executor(plan, plan.subjects[planned.key.problem])
    with contextlib.closing(creator), contextlib.closing(executor):
        study = Study.open(task, name, home=plan.home, creator=creator, executor=executor)
        with contextlib.suppress(NoGoodTrialError):  # a result as well
            study.run()
        return [trial for trial in study.trials if trial.state in COUNTED]


def _executor(plan: ExperimentPlan, subject: Subject) -> Executor:
    function = subject.function
    if function is not None:
        return SimulatedExecutor(
            lambda config, _: simulation.replay_trial(function, config), RealClock()
        )
    trainings = TrainingCache(plan.home / "trainings", subject.training_digest)
    return CachingExecutor(ProcessExecutor(), trainings)
