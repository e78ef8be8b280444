"""`tune`: a function or a task, tuned in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from localhpo.errors import InputError
from localhpo.executor import FunctionExecutor, check_function
from localhpo.objective import Direction
from localhpo.space import Space
from localhpo.study.study import Callback, Study
from localhpo.task import CreatorSettings, Resources, Task, constraints_of, load_task, objectives_of
from localhpo.trial import Config

Target = Callable[..., Any] | Task | Path | str


def tune(
    target: Target,
    space: Space | Mapping[str, Mapping[str, Any]] | None = None,
    *,
    fixed: Config | None = None,
    metric: str | None = None,
    direction: Direction | None = None,
    objectives: Mapping[str, Direction] | None = None,
    constraints: Mapping[str, Mapping[str, float]] | None = None,
    name: str | None = None,
    background: str = "",
    trials: int | None = None,
    timeout_s: float | None = None,
    parallel: int | None = None,
    seed: int | None = None,
    creator: CreatorSettings | str | None = None,
    resources: Resources | None = None,
    study: str = "main",
    home: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Study:
    """Tune a function, or a task, and return its study.

        def train(learning_rate, depth):
            ...
            return loss

        study = localhpo.tune(
            train,
            {
                "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
                "depth": {"type": "int", "low": 2, "high": 8},
            },
            trials=20,
        )
        print(study.best_trial.config, study.best_trial.value)

    Calling it again goes on with the same study; `trials` is its total.

    Args:
        target: a function (each call runs in a child process; it returns the value of `metric`,
            or a dictionary of metrics, and may call `localhpo.report` on the way), a `Task`, or
            the path of a task file.
        space: the search space, of a function only: a `Space`, or a table as in a task file.
        fixed: hyperparameters that are not tuned, and their values, of a function only: it gets
            them as it gets the tuned ones, and the model sees them.
        metric: name of the one objective (`score` by default), of a function only; as are the next
            five.
        direction: whether to make it small (the default) or large.
        objectives: several objectives with their directions, in place of `metric` and
            `direction`: `{"loss": "minimize", "size_mb": "minimize"}`.
        constraints: bounds on metrics: `{"latency_ms": {"max": 200.0}}`.
        name: of the task; the function's own by default.
        background: what is tuned, in plain words, for the model.
        trials: total of the study (10 by default).
        timeout_s: per trial.
        parallel: trials at once, whatever `resources` says.
        seed: of every random choice.
        creator: the creator, by name or as settings.
        resources: what each trial may use, and how it shares the machine with the model.
        study: name of the study, among those of the task.
        home: folder of the store; `$LOCALHPO_HOME`, else `./.localhpo`.
        callbacks: called with the study and each trial that has ended.

    Raises:
        InputError: the arguments do not fit together.
        LocalHPOError: as `Study.open` and `Study.run`.
    """
    function = None if isinstance(target, Task | Path | str) else target
    goals = _goals(metric, direction, objectives, constraints)
    task = _task(target, space, fixed, goals, name, background)
    if resources is not None:
        task = dataclasses.replace(task, resources=resources)
    if function is not None and task.resources.executor != "process":
        raise InputError(
            f"a function runs on this machine; got executor = {task.resources.executor!r}",
            hint="make it a script and a task: localhpo init SCRIPT",
        )
    task = dataclasses.replace(
        task,
        budget=dataclasses.replace(task.budget, **_given(trials=trials, timeout_s=timeout_s)),
        resources=dataclasses.replace(task.resources, **_given(parallel=parallel)),
        **_given(seed=seed),
    )
    if creator is not None:
        settings = CreatorSettings(name=creator) if isinstance(creator, str) else creator
        task = dataclasses.replace(task, creator=settings)
    if function is not None:
        check_function(function, task)
    executor = FunctionExecutor(function) if function is not None else None
    try:
        opened = Study.open(task, study, home=home, executor=executor)
        opened.run(callbacks=callbacks)
    finally:
        if executor is not None:
            executor.close()
    return opened


def _task(
    target: Target,
    space: Space | Mapping[str, Mapping[str, Any]] | None,
    fixed: Config | None,
    goals: Mapping[str, Any],
    name: str | None,
    background: str,
) -> Task:
    """Return the task that is given, or the one that a function makes.

    Raises:
        InputError: nothing that can be tuned, a function without a space, or a task with
            another one, or with other fixed values.
    """
    if isinstance(target, Task | Path | str):
        if space is not None:
            raise InputError("a task has a space of its own; got another in `space`")
        if fixed is not None:
            raise InputError("a task says itself what is fixed; got more in `fixed`")
        return target if isinstance(target, Task) else load_task(target)
    if not callable(target):
        raise InputError(f"what is tuned must be a function, a task or a path; got {target!r}")
    if space is None:
        raise InputError("a function is tuned in a space; got none", hint="pass `space`")
    return Task(
        name=name or _name(target),
        command=(),
        objectives=objectives_of(goals, goals["task"], "tune"),
        constraints=constraints_of(goals, "tune"),
        space=space if isinstance(space, Space) else Space.from_table(space, "space"),
        background=background,
        fixed=dict(fixed or {}),
        folder=Path.cwd(),
    )


def _goals(
    metric: str | None,
    direction: Direction | None,
    objectives: Mapping[str, Direction] | None,
    constraints: Mapping[str, Mapping[str, float]] | None,
) -> dict[str, Any]:
    """Return objectives and constraints as the tables of a task file.

    Raises:
        InputError: the objective is given in both forms, or something is no mapping.
    """
    if objectives is not None and (metric is not None or direction is not None):
        raise InputError(
            "objectives must be given in one form; got `objectives` beside `metric` or `direction`",
            hint="put all of them into `objectives`",
        )
    if objectives is not None and not (objectives and isinstance(objectives, Mapping)):
        raise InputError(
            f"objectives must be directions by name; got {objectives!r}",
            hint='for instance {"loss": "minimize", "size_mb": "minimize"}',
        )
    bounds = constraints or {}
    if not isinstance(bounds, Mapping) or not all(isinstance(b, Mapping) for b in bounds.values()):
        raise InputError(
            f"constraints must be bounds by name; got {constraints!r}",
            hint='for instance {"latency_ms": {"max": 200.0}}',
        )
    short = {"metric": "score", "direction": "minimize"}
    short |= _given(metric=metric, direction=direction)
    return {
        "task": short if objectives is None else {},
        "objective": [{"name": one, "direction": way} for one, way in (objectives or {}).items()],
        "constraint": [{"name": one, **bound} for one, bound in bounds.items()],
    }


def _name(function: Callable[..., Any]) -> str:
    """Return a task's name for a function; `<lambda>` has none that a folder could have."""
    return getattr(function, "__name__", type(function).__name__).strip("<>_") or "function"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
