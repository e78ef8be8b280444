"""Registry of creators: opens the one that a task names.

A creator is one entry of `CREATORS`, or an entry point of the group `localhpo.creators`. Its
factory returns a `Creator` (see `localhpo.creator.protocol`). It may take these options, by
keyword:

    task: what to tune; `task.creator` has the settings.
    backend: serves a language model. The caller closes it. None: a creator that asks a model opens
        the one that the task names, with `open_task_backend(task, placer)`, and closes it.
    placer: is asked for memory before a model is loaded.
    retrieved: configurations of similar past studies, in the task's space.

Past studies are for factories that take `retrieved` only: for any other creator,
`[creator] transfer` must be "off".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localhpo.errors import InputError
from localhpo.llm import open_backend
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models import versions
from localhpo.llm.registry import BACKENDS
from localhpo.plugins import Registry
from localhpo.task import Task

if TYPE_CHECKING:
    from localhpo.creator.protocol import Creator
    from localhpo.llm.placement import ModelPlacer
    from localhpo.llm.protocol import Backend
    from localhpo.transfer import RetrievedConfig

CREATORS: Registry[Creator] = Registry(
    "creator",
    {
        "hybrid": "localhpo.creator.hybrid:open_hybrid",
        "agent": "localhpo.creator.hybrid:open_agent",
        "bo": "localhpo.creator.bo:BayesianOptimizer",
        "random": "localhpo.creator.optuna:open_engine",
        "tpe": "localhpo.creator.optuna:open_engine",
        "gp": "localhpo.creator.optuna:open_engine",
        "cmaes": "localhpo.creator.optuna:open_engine",
        "nsga2": "localhpo.creator.optuna:open_engine",
    },
    options=("task", "backend", "placer", "retrieved"),
)

FIRST_OBJECTIVE_ONLY = ("hybrid", "agent", "bo")
"""Creators that optimize the first objective of a task, and ignore its constraints."""


def describe_ignored_goals(task: Task, creator: str) -> str:
    """Return which goals of the task a creator ignores, and which creators do not; else empty."""
    others = [objective.name for objective in task.objectives[1:]]
    limits = [constraint.describe() for constraint in task.constraints]
    if creator not in FIRST_OBJECTIVE_ONLY or not (others or limits):
        return ""
    ignored = ", ".join([*others, *limits])
    verb = "is" if len(others) + len(limits) == 1 else "are"
    return (
        f"{creator} optimizes {task.metric} only; {ignored} {verb} recorded. The creators nsga2, "
        "tpe and gp take all objectives and constraints into account"
    )


def open_creator(
    task: Task,
    *,
    backend: Backend | None = None,
    retrieved: Sequence[RetrievedConfig] = (),
    placer: ModelPlacer | None = None,
) -> Creator:
    """Return the Creator named in the task's settings; a model is loaded where it needs one.

    Args:
        task: its `creator` settings name the creator.
        backend: serves the model, in place of the one that the settings name. The caller closes
            it.
        retrieved: configurations of similar past studies (`transfer.retrieval`), for a Creator
            that uses them.
        placer: asked for memory before the model is loaded.

    Raises:
        InputError: no Creator has that name, or the one named cannot search the space or cannot
            use past studies as the settings say.
        PluginError: it is that of a plug-in which cannot be imported.
        MissingExtraError: it needs a package that is not installed. (A hybrid whose
            `on_model_error` is `engine` does without the model where neither a backend nor a
            model was named, and says so with each proposal.)
        ModelError: the model, or its server, cannot be used.
    """
    name, transfer = task.creator.name, task.creator.transfer
    if transfer != "off" and not CREATORS.takes(name, "retrieved"):
        raise InputError(
            f'transfer = "{transfer}" needs a creator that uses past studies, '
            f"{' or '.join(CREATORS.takers('retrieved'))}; got {name!r}",
            hint='take another creator, or transfer = "off"',
        )
    return CREATORS.make(name, task=task, backend=backend, placer=placer, retrieved=retrieved)


def open_task_backend(task: Task, placer: ModelPlacer | None = None) -> Backend:
    """Open the backend that the settings of a task name, for a creator that asks a model.

    Raises:
        InputError, PluginError, MissingExtraError, ModelError: as `open_backend`.
    """
    settings = task.creator
    takes_device = BACKENDS.takes(settings.backend, "device")
    model = settings.model
    if settings.transfer == "finetuned":
        model = versions.current_version_name(model or model_registry.DEFAULT)
    return open_backend(
        settings.backend,
        model=model,
        model_gpus=settings.model_gpus,
        url=settings.url,
        allow_remote=settings.allow_remote,
        device="cpu" if task.resources.sharing == "cpu" and takes_device else None,
        placer=placer,
    )
