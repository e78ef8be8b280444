"""Runs the studies of the protocol that are missing, so many at a time.

Everything is in the home of these studies: a run that was killed at any point goes on where it
stood, and a training that was completed is not run again (`trainings`). A study's name says by
a hash which Creator and which version of the task it is about, so nothing stale is read.
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

from localhpo.bench import creators, pool, simulation
from localhpo.bench.agenthpo.subjects import Subject, open_subject
from localhpo.bench.agenthpo.trainings import RememberingExecutor, Trainings
from localhpo.bench.creators import Choice
from localhpo.bench.pool import Call, Failed, Tell
from localhpo.data import VARIABLE
from localhpo.errors import InputError, NoGoodTrialError, StudyInterruptedError
from localhpo.executor import Executor, ProcessExecutor, SimulatedExecutor
from localhpo.executor.clock import RealClock
from localhpo.store import Store, study_name
from localhpo.study import Study
from localhpo.study.place import check_script
from localhpo.task import Task
from localhpo.trial import COUNTED, Trial

RANDOM = creators.parse("random")
"""Whose trials make the line that stands for a human."""


_open = functools.cache(open_subject)
_creator_digest = functools.cache(creators.digest)  # which reads the files of a model


@dataclass(frozen=True)
class Plan:
    """What to run."""

    tasks: tuple[str, ...]
    """Names of ready tasks, paths of task files, and names of the quadratics."""
    creators: tuple[Choice, ...]
    runs: int
    trials: int
    """Of a run."""
    best_of: int
    """Trials of random search whose best stands for a human."""
    jobs: int
    """Studies at a time."""
    home: Path
    """Of the studies and the trainings."""
    data: Path | None = None
    """Folder of the data of the tasks."""
    small: bool = False

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The tasks, opened. Raises as `open_subject`."""
        return tuple(_open(name, data=self.data, small=self.small) for name in self.tasks)

    @property
    def random_runs(self) -> int:
        """Runs of random search: those that are compared, and as many more as `best_of` takes."""
        compared = self.runs if RANDOM in self.creators else 0
        return max(compared, math.ceil(self.best_of / self.trials))


@dataclass(frozen=True)
class Unit:
    """One study: a task, a Creator and the number of the run."""

    place: int
    """Of the task in the plan."""
    choice: Choice
    run: int


Studies = Mapping[Unit, tuple[Trial, ...]]
"""The trials of each study that has come to its end, by number."""


def run(plan: Plan, tell: Tell) -> tuple[Studies, list[Failed]]:
    """Run what is missing; return all complete studies of the plan, and what failed.

    Raises:
        InputError, TaskError: a task is not there, cannot be run, or is there twice.
        DataError: what a script reads is not on this machine.
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    _check(plan)
    wanted = units(plan)
    done = {u: trials for u, trials in _stored(plan, wanted).items() if len(trials) == plan.trials}
    calls = [Call(_what(plan, unit), work, (plan, unit)) for unit in wanted if unit not in done]
    if not calls:
        return done, []
    environment = {} if plan.data is None else {VARIABLE: str(plan.data)}
    ended: list[Unit] = []
    failed = pool.work_off(
        calls, jobs=plan.jobs, take=ended.append, tell=tell, environment=environment
    )
    return {**done, **_stored(plan, ended)}, failed


def _check(plan: Plan) -> None:
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


def units(plan: Plan) -> list[Unit]:
    """Return all studies, run by run: what is cut short has whole comparisons."""
    compared = [
        Unit(place, choice, number)
        for number in range(plan.runs)
        for place in range(len(plan.subjects))
        for choice in plan.creators
    ]
    # One after another per task: the pool of random trials needs no partner.
    alone = [
        Unit(place, RANDOM, number)
        for place in range(len(plan.subjects))
        for number in range(plan.random_runs)
    ]
    return list(dict.fromkeys([*compared, *alone]))


def name_of(plan: Plan, unit: Unit) -> str:
    """Return the name of a study in the store."""
    subject = plan.subjects[unit.place]
    words = [subject.digest, unit.choice.name, _creator_digest(unit.choice)]
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:10]
    base = unit.choice.base.replace("+", "-")
    return study_name(subject.name, f"{base}-{digest}-{plan.trials}x{unit.run}")


def task_of(plan: Plan, unit: Unit) -> Task:
    """Return the task of a study: with the same seed for every Creator."""
    task = plan.subjects[unit.place].task
    budget = dataclasses.replace(task.budget, trials=plan.trials, minutes=None, gpu_minutes=None)
    return dataclasses.replace(task, budget=budget, seed=simulation.study_seed(task.name, unit.run))


def _stored(plan: Plan, wanted: Sequence[Unit]) -> dict[Unit, tuple[Trial, ...]]:
    """Return the trials that ended of the studies that there are."""
    store = Store(plan.home)
    known = {record.name for record in store.studies()}
    names = {unit: name_of(plan, unit) for unit in wanted}
    return {
        unit: tuple(trial for trial in store.trials(name) if trial.state in COUNTED)
        for unit, name in names.items()
        if name in known
    }


def _what(plan: Plan, unit: Unit) -> str:
    return f"{unit.choice.name} on {plan.subjects[unit.place].name}, run {unit.run}"


# In the processes.


def work(plan: Plan, unit: Unit) -> Unit:
    """Run one study to its end, and return which it was.

    Raises:
        LocalHPOError: it cannot go on.
    """
    try:
        _study(plan, unit)
    except NoGoodTrialError:
        pass  # which is a result
    except StudyInterruptedError:
        os._exit(130)  # this process takes no other study
    return unit


def _study(plan: Plan, unit: Unit) -> None:
    task = task_of(plan, unit)
    _, _, name = name_of(plan, unit).partition("/")
    creator = creators.make(unit.choice, task, creators.backends().of(unit.choice))
    with (
        contextlib.closing(creator),
        contextlib.closing(_executor(plan, plan.subjects[unit.place])) as executor,
    ):
        Study.open(task, name, home=plan.home, creator=creator, executor=executor).run()


def _executor(plan: Plan, subject: Subject) -> Executor:
    function = subject.function
    if function is not None:
        return SimulatedExecutor(lambda config, _: simulation.replay(function, config), RealClock())
    trainings = Trainings(plan.home / "trainings", subject.training_digest)
    return RememberingExecutor(ProcessExecutor(), trainings)
