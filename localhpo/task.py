"""A task: what to tune, from `task.toml` to a frozen `Task`.

Every key, with its meaning, stands under the field it becomes. `load` reads a file,
`parse` a table that is already read; both raise `TaskError` (or `SpaceError`) naming the
file, the key, what must hold and what came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from localhpo.space import Space
from localhpo.trial import Direction, Objective


@dataclass(frozen=True, slots=True)
class Budget:
    """When a study ends. At least one of `trials`, `minutes`, `gpu_minutes`."""

    trials: int | None = 10
    """Trials of the study in total, over all runs (complete, pruned and failed ones)."""
    minutes: float | None = None
    """Wall-clock minutes of tuning, over all runs."""
    gpu_minutes: float | None = None
    """Wall-clock minutes of trials times the GPUs they held, over all runs."""
    timeout_s: float | None = None
    """Per trial; none by default."""
    grace_s: float = 5.0
    """Between asking a trial to end (TERM) and ending it (KILL)."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a trial needs, and how many run at once."""

    parallel: int = 1
    cpus: float = 1.0
    """Per trial."""
    gpus: float = 0.0
    """Per trial; a fraction shares a device."""
    memory_mb: float | None = None
    """Host memory per trial: the limit of its whole process group."""
    gpu_memory_mb: float | None = None
    executor: Literal["process", "ray"] = "process"


@dataclass(frozen=True, slots=True)
class CreatorSettings:
    """Who proposes."""

    name: str = "hybrid"
    """hybrid, agent, random, tpe, gp or cmaes."""
    backend: str = "transformers"
    """transformers, openai or scripted."""
    model: str | None = None
    """Name of a model (`localhpo models`), a folder, or what the server calls it.
    None: the built-in one."""
    url: str | None = None
    """Of the server, for `openai`."""
    allow_remote: tuple[str, ...] = ()
    """Hosts other than this machine that may be spoken to, by name."""
    on_model_error: Literal["stop", "engine"] = "engine"
    experience: Literal["off", "retrieve", "finetuned"] = "off"


@dataclass(frozen=True, slots=True)
class PrunerSettings:
    """Which trials are stopped early."""

    name: Literal["none", "median", "asha"] = "none"
    warmup_steps: int = 0
    """Steps (the first ones reported) that are never pruned."""
    reduction_factor: int = 3
    """Of successive halving: the best 1/factor of each rung go on."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to tune."""

    name: str
    command: tuple[str, ...]
    """An argument list; `{name}` inserts a value. Empty for a Python function."""
    metric: str
    direction: Direction
    space: Space
    background: str = ""
    """In plain words, for the Creator: the data, the model, the aim."""
    objective: Objective = "last"
    """Whether the score is the last value reported or the best."""
    budget: Budget = Budget()
    resources: Resources = Resources()
    creator: CreatorSettings = CreatorSettings()
    pruner: PrunerSettings = PrunerSettings()
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of each trial."""
    folder: Path = Path()
    """Where the script runs: the folder of the task file, or `[task] cwd` below it."""
    seed: int = 0
    stdout_regex: str | None = None
    """Opt-in: read the metric from standard output; one group, a number."""
    source: Path | None = None
    """The file it was read from."""
