"""A task: what to tune, from `task.toml` to a frozen `Task`.

Every key, with its meaning, stands under the field it becomes. `load_task` reads a file,
`parse_task` a table that is already read; both raise `TaskError` (or `SpaceError`) naming the
file, the key, what must hold and what came.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from localhpo import data as task_data
from localhpo.data import Data
from localhpo.errors import TaskError
from localhpo.objective import Constraint, Direction, Evaluation, Objective, ValueRule, evaluate
from localhpo.space import Space
from localhpo.tables import refuse_unknown, scalar_of, table_of, tables_of, value_of
from localhpo.trial import Measurement, Usage, Value

Sharing = Literal["auto", "resident", "sleep", "device", "stop", "cpu"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of a study: at least one of `trials`, `minutes`, `gpu_minutes`."""

    trials: int | None = 10
    """Trials of the study in total, over all runs (complete, pruned and failed ones)."""
    minutes: float | None = None
    """Wall-clock minutes of tuning, over all runs."""
    gpu_minutes: float | None = None
    """Wall-clock minutes of trials times the GPUs they held, over all runs."""
    timeout_s: float | None = None
    """Time limit of a trial; none by default."""
    grace_s: float = 5.0
    """Seconds between asking a trial to end (SIGTERM) and killing it (SIGKILL)."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of a trial, and the number of trials that run at once."""

    parallel: int = 1
    cpus: float = 1.0
    """Per trial."""
    gpus: float = 0.0
    """Per trial; a fraction shares a device."""
    memory_mb: float | None = None
    """Limit on the host memory of a trial, for all its processes together."""
    gpu_memory_mb: float | None = None
    executor: Literal["process", "ray"] = "process"
    """Where trials run: on this machine, or on the nodes of a Ray cluster."""
    ray_address: str | None = None
    """host:port of the cluster; RAY_ADDRESS by default, else the one of this machine."""
    sharing: Sharing = "auto"
    """How trials and the model's server share memory; `auto` decides by numbers."""
    priority: float = 1.0
    """Priority beside other studies on the machine: twice as much gets twice the turns."""


@dataclass(frozen=True, slots=True)
class CreatorSettings:
    """Settings of the creator, which proposes configurations."""

    name: str = "hybrid"
    """Name of a creator: hybrid, agent, an engine such as bo or tpe, or one of a plug-in."""
    backend: str = "transformers"
    """Name of a backend, which runs the model or asks a server; one of a plug-in, too."""
    model: str | None = None
    """Name of a model (`localhpo models`), a folder, or what the server calls it.
    None: the built-in one."""
    model_gpus: int | None = None
    """GPUs that the model is split over, for `vllm`; one by default."""
    url: str | None = None
    """Address of the server, for `openai`."""
    allow_remote: tuple[str, ...] = ()
    """Names of hosts other than this machine that LocalHPO may connect to."""
    on_model_error: Literal["stop", "engine"] = "engine"
    transfer: Literal["off", "retrieve", "finetuned"] = "off"
    """How past studies are used: `retrieve` shows similar ones to the model and the optimizer,
    `finetuned` uses a model that was trained on them."""


@dataclass(frozen=True, slots=True)
class PrunerSettings:
    """Settings of the pruner, which stops trials early."""

    name: str = "none"
    """Name of a pruner: none, median, asha, or one of a plug-in."""
    warmup_steps: int = 0
    """Steps (the first ones reported) that are never pruned."""
    reduction_factor: int = 3
    """Reduction factor of successive halving: the best 1/factor of each rung go on."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task: what to tune, and how."""

    name: str
    command: tuple[str, ...]
    """An argument list; `{name}` inserts a value. Empty for a Python function."""
    objectives: tuple[Objective, ...]
    """One or more; with several, `Trial.values` has one value for each."""
    space: Space
    constraints: tuple[Constraint, ...] = ()
    """Bounds that the best trials must keep."""
    background: str = ""
    """In plain words, for the Creator: the data, the model, the aim."""
    value: ValueRule = "last"
    """Whether a trial's value is the last one reported or the best."""
    budget: Budget = Budget()
    resources: Resources = Resources()
    creator: CreatorSettings = CreatorSettings()
    pruner: PrunerSettings = PrunerSettings()
    data: Data | None = None
    """Data files that the script reads and that do not come with it."""
    fixed: Mapping[str, Value] = field(default_factory=dict)
    """Hyperparameters that are not tuned, and their values. The script gets them like tuned ones.
    The creator sees them, since good values of others may depend on them."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of each trial."""
    folder: Path = Path()
    """Where the script runs: the folder of the task file, or `[task] cwd` below it."""
    seed: int = 0
    stdout_regex: str | None = None
    """Regular expression that finds the metric in standard output; its one group is a number."""
    private: bool = False
    """Whether its studies are kept from other studies and from the training of models."""
    source: Path | None = None
    """The file it was read from."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of everything that the script is given: what is tuned, and what is fixed."""
        return (*self.space.names, *self.fixed)

    @property
    def metric(self) -> str:
        """Name of the first objective."""
        return self.objectives[0].name

    @property
    def direction(self) -> Direction:
        """Direction of the first objective."""
        return self.objectives[0].direction

    @property
    def single_objective(self) -> Task:
        """The same task with its first objective alone, and without constraints."""
        if len(self.objectives) == 1 and not self.constraints:
            return self
        return dataclasses.replace(self, objectives=self.objectives[:1], constraints=())

    def evaluate(self, measurements: Iterable[Measurement], usage: Usage) -> Evaluation:
        """Return the values and violations of a run."""
        return evaluate(self.objectives, self.constraints, measurements, usage, self.value)


_SECTIONS: Mapping[str, type] = {
    "budget": Budget,
    "resources": Resources,
    "creator": CreatorSettings,
    "pruner": PrunerSettings,
}
KEYS: Mapping[str, tuple[str, ...]] = {
    "task": (
        "name", "command", "metric", "direction", "background", "value", "env", "cwd", "seed",
        "stdout_regex", "private",
    ),
    "objective": ("name", "direction"),
    "constraint": ("name", "min", "max"),
    "data": task_data.KEYS,
    **{section: tuple(get_type_hints(cls)) for section, cls in _SECTIONS.items()},
}  # fmt: skip
"""Section of a task file -> its keys. `[space]` and `[fixed]` have names of hyperparameters."""
_RENAMED = {"task": {"objective": "value"}, "creator": {"experience": "transfer"}}
"""Section -> key of version 0.1.0 -> the key that it is read as."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_POSITIVE = (
    "trials", "minutes", "gpu_minutes", "timeout_s", "parallel", "cpus", "memory_mb",
    "gpu_memory_mb", "priority", "model_gpus",
)  # fmt: skip
_AT_LEAST = {"grace_s": 0, "gpus": 0, "warmup_steps": 0, "reduction_factor": 2}


def load_task(path: Path | str) -> Task:
    """Read a task file, or the `task.toml` of a folder.

    Raises:
        TaskError: the file cannot be read, or does not describe a task.
        SpaceError: its space is invalid.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "task.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TaskError(
            f"{path}: no such task file", hint="`localhpo init` writes one from a script"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path}: not valid TOML: {error}") from error
    task = parse_task(table, folder=path.resolve().parent, where=str(path), source=path.resolve())
    if not task.command:
        raise TaskError(
            f"{path} [task] command: must be given, as a list of arguments",
            hint='command = ["python", "train.py"]',
        )
    return task


def parse_task(
    table: Mapping[str, Any], *, folder: Path, where: str = "task", source: Path | None = None
) -> Task:
    """Return the task that a table describes; relative folders are below `folder`.

    Raises:
        TaskError: a key is missing, unknown, or of the wrong kind.
        SpaceError: the space is invalid.
    """
    refuse_unknown(table, (*KEYS, "space", "fixed"), where)
    here = f"{where} [task]"
    task = _with_new_keys("task", table_of(table, "task", where, required=True), here)
    refuse_unknown(task, KEYS["task"], here)
    kind = get_type_hints(Task)
    fields = {
        key: value_of(value, kind[key], f"{here} {key}")
        for key, value in task.items()
        if key in kind and key != "env"
    }
    if not fields.get("name"):
        raise TaskError(f"{here} name: must be given and not be empty")
    if not _NAME.fullmatch(fields["name"]):
        raise TaskError(
            f"{here} name: must be letters, digits, '.', '_' and '-', beginning with a letter or "
            f"digit, at most 100 of them; got {fields['name']!r}"
        )
    fields.setdefault("command", ())
    objectives = objectives_of(table, task, where)
    _check_several(objectives, fields, table_of(table, "pruner", where), where)
    _check_regex(fields.get("stdout_regex"), here)
    space = Space.from_table(table_of(table, "space", where, required=True), f"{where} [space]")
    return Task(
        **fields,
        objectives=objectives,
        constraints=constraints_of(table, where),
        space=space,
        fixed=fixed_of(table_of(table, "fixed", where), space, f"{where} [fixed]"),
        data=task_data.parse_data(table_of(table, "data", where), f"{where} [data]"),
        env=_environment(task.get("env", {}), here),
        folder=_folder(task.get("cwd"), folder, here),
        source=source,
        **{
            name: _section(name, cls, table_of(table, name, where), f"{where} [{name}]")
            for name, cls in _SECTIONS.items()
        },
    )


def to_table(task: Task) -> dict[str, Any]:
    """Return the JSON-able table from which `parse_task` makes the same task again."""
    head = {
        "name": task.name,
        "command": list(task.command),
        "background": task.background,
        "value": task.value,
        "env": dict(task.env),
        "cwd": str(task.folder),
        "seed": task.seed,
        "private": task.private,
    }
    if task.stdout_regex is not None:
        head["stdout_regex"] = task.stdout_regex
    table: dict[str, Any] = {
        "task": head,
        "objective": [dataclasses.asdict(objective) for objective in task.objectives],
        "space": task.space.to_table(),
    }
    if task.constraints:
        table["constraint"] = [_given(dataclasses.asdict(one)) for one in task.constraints]
    if task.fixed:
        table["fixed"] = dict(task.fixed)
    if task.data is not None:
        table["data"] = task.data.to_table()
    for name in _SECTIONS:
        settings = dataclasses.asdict(getattr(task, name))
        table[name] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in _given(settings).items()
        }
    if "trials" not in table["budget"]:
        table["budget"]["trials"] = 0  # 0: any number; without the key it would be the default
    return table


def with_overrides(
    task: Task,
    *,
    trials: int | None = None,
    parallel: int | None = None,
    seed: int | None = None,
    sharing: str | None = None,
    **creator: str | int | None,
) -> Task:
    """Return the task with the options of a command line; None keeps the value of the task file.

    `creator` takes the fields of `CreatorSettings` (`name`, `backend`, `model`, ...).

    Raises:
        TaskError: a value is out of its range.
    """
    table = to_table(task)
    changes: dict[str, dict[str, Any]] = {
        "task": {"seed": seed},
        "budget": {"trials": trials},
        "resources": {"parallel": parallel, "sharing": sharing},
        "creator": creator,
    }
    for section, values in changes.items():
        given = {key: value for key, value in values.items() if value is not None}
        for key, value in given.items():
            if key in _POSITIVE and value <= 0:
                raise TaskError(f"--{key.replace('_', '-')}: must be greater than 0; got {value}")
        table[section].update(given)
    again = parse_task(table, folder=task.folder, where="command line", source=task.source)
    return dataclasses.replace(again, space=task.space)


def with_data(task: Task, given: Path | None = None) -> Task:
    """Return the task with the folder of its data in the environment of trials.

    Args:
        task: the task.
        given: folder of the data; by default LOCALHPO_DATA, of `[task] env` or of this process.

    Raises:
        DataError: data that the task declares are not in the folder.
    """
    folder = given or task.env.get(task_data.VARIABLE) or os.environ.get(task_data.VARIABLE)
    for part in task.data.wanted(task.command) if task.data is not None else ():
        task_data.find_data(part, folder)
    if not folder:
        return task
    # Trials run in the folder of the script: a relative path would mean another one there.
    absolute = str(Path(folder).absolute())
    return dataclasses.replace(task, env={**task.env, task_data.VARIABLE: absolute})


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _with_new_keys(section: str, table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return a section with keys of version 0.1.0 under their present names."""
    renamed = _RENAMED.get(section, {})
    for old, new in renamed.items():
        if old in table and new in table:
            raise TaskError(f"{where}: must have one of {new!r} and its older name {old!r}")
    return {renamed.get(key, key): value for key, value in table.items()}


def objectives_of(
    table: Mapping[str, Any], task: Mapping[str, Any], where: str
) -> tuple[Objective, ...]:
    """Return the objectives: those of `[[objective]]`, or the one of `[task] metric`.

    Raises:
        TaskError: none is given, both forms are, or a name occurs twice.
    """
    rows = tables_of(table, "objective", where)
    short = [key for key in ("metric", "direction") if key in task]
    if rows and short:
        raise TaskError(
            f"{where}: objectives must be given in one form; got [[objective]] and "
            f"[task] {' and '.join(short)}",
            hint=f"move what [task] says into an [[objective]], and delete {' and '.join(short)}",
        )
    if not rows:
        row = {"name": task.get("metric"), "direction": task.get("direction")}
        return (_objective(row, f"{where} [task]", "metric"),)
    objectives = tuple(
        _objective(row, f"{where} [[objective]] {number}", "name")
        for number, row in enumerate(rows, start=1)
    )
    _refuse_twice([objective.name for objective in objectives], f"{where} [[objective]]")
    return objectives


def _objective(row: Mapping[str, Any], where: str, name_key: str) -> Objective:
    refuse_unknown(row, KEYS["objective"], where)
    if not str(row.get("name") or "").strip():
        raise TaskError(f"{where} {name_key}: must be given and not be empty")
    if row.get("direction") is None:
        raise TaskError(
            f"{where} direction: must be given", hint='direction = "minimize" or "maximize"'
        )
    return Objective(
        value_of(row["name"], str, f"{where} {name_key}"),
        value_of(row["direction"], Direction, f"{where} direction"),
    )


def constraints_of(table: Mapping[str, Any], where: str) -> tuple[Constraint, ...]:
    """Return the constraints of `[[constraint]]`.

    Raises:
        TaskError: a name occurs twice, or its bounds contradict each other or are missing.
    """
    constraints = []
    for number, row in enumerate(tables_of(table, "constraint", where), start=1):
        here = f"{where} [[constraint]] {number}"
        refuse_unknown(row, KEYS["constraint"], here)
        if not str(row.get("name") or "").strip():
            raise TaskError(f"{here} name: must be given and not be empty")
        bounds = {
            key: value_of(row[key], float, f"{here} {key}") for key in ("min", "max") if key in row
        }
        if not bounds:
            raise TaskError(
                f"{here}: must bound {row['name']!r} by min, max or both",
                hint="for instance max = 200.0",
            )
        if bounds.get("min", -math.inf) > bounds.get("max", math.inf):
            raise TaskError(
                f"{here}: min <= max must hold; got min = {bounds['min']:g}, "
                f"max = {bounds['max']:g}"
            )
        constraints.append(Constraint(value_of(row["name"], str, f"{here} name"), **bounds))
    _refuse_twice([constraint.name for constraint in constraints], f"{where} [[constraint]]")
    return tuple(constraints)


def _check_several(
    objectives: tuple[Objective, ...],
    task: Mapping[str, Any],
    pruner: Mapping[str, Any],
    where: str,
) -> None:
    """Refuse settings that support one objective only."""
    if len(objectives) == 1:
        return
    if task.get("value") == "best":
        raise TaskError(
            f'{where} [task] value: must be "last" with {len(objectives)} objectives, whose '
            'values belong to one moment of the run; got "best"'
        )
    if pruner.get("name", "none") != "none":
        raise TaskError(
            f'{where} [pruner] name: must be "none" with {len(objectives)} objectives, since '
            f"a pruner compares trials by one; got {pruner['name']!r}"
        )


def _refuse_twice(names: list[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise TaskError(f"{where}: each name must occur once; got {name!r} twice")


def _section(name: str, cls: type, table: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(cls)
    table = _with_new_keys(name, table, where)
    refuse_unknown(table, KEYS[name], where)
    values = {key: value_of(value, hints[key], f"{where} {key}") for key, value in table.items()}
    for key, value in values.items():
        _check_range(key, value, where)
    if cls is Budget:
        values = _bounded(values, where)
    return cls(**values)


def _bounded(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the budget, in which `trials = 0` or only another bound means any number of trials."""
    other = any(values.get(key) for key in ("minutes", "gpu_minutes"))
    if "trials" not in values and other:
        return {**values, "trials": None}
    if values.get("trials") == 0:
        if not other:
            raise TaskError(f"{where}: one of trials, minutes, gpu_minutes must bound the study")
        return {**values, "trials": None}
    return values


def _check_range(key: str, value: Any, where: str) -> None:
    if value is None:
        return
    if key in _POSITIVE and value <= 0 and not (key == "trials" and value == 0):
        raise TaskError(f"{where} {key}: must be greater than 0; got {value}")
    if key in _AT_LEAST and value < _AT_LEAST[key]:
        raise TaskError(f"{where} {key}: must be at least {_AT_LEAST[key]}; got {value}")


def fixed_of(table: Mapping[str, Any], space: Space, where: str) -> dict[str, Value]:
    """Return the fixed hyperparameters of a `[fixed]` table.

    Raises:
        TaskError: a name is in the space too, or its value cannot be that of a hyperparameter.
    """
    for name in table:
        if name in space.names:
            raise TaskError(
                f"{where} {name}: must not be in [space] too, which tunes it",
                hint="remove it from [fixed] or from [space]",
            )
    return {name: scalar_of(value, f"{where} {name}") for name, value in table.items()}


def _environment(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values()):
        return dict(value)
    raise TaskError(f"{where} env: must be a table of strings; got {value!r}")


def _folder(cwd: Any, folder: Path, where: str) -> Path:
    if cwd is None:
        return folder
    if not isinstance(cwd, str):
        raise TaskError(f"{where} cwd: must be a string; got {cwd!r}")
    return folder / cwd


def _check_regex(regex: str | None, where: str) -> None:
    if regex is None:
        return
    try:
        groups = re.compile(regex).groups
    except re.error as error:
        raise TaskError(f"{where} stdout_regex: not a regular expression: {error}") from error
    if groups != 1:
        raise TaskError(
            f"{where} stdout_regex: must have exactly one group, the number; got {groups}"
        )
