"""Registry of creators: opens the one that a task names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from localhpo.creator.bo import BayesianOptimizer
from localhpo.creator.bo.optimizer import NAME as BO
from localhpo.creator.meta_proposer import MetaDataProposer, open_meta_data
from localhpo.creator.optuna import ENGINES, Engine, check_task
from localhpo.errors import InputError, MissingExtraError, did_you_mean
from localhpo.task import CreatorSettings, Task

if TYPE_CHECKING:
    from localhpo.creator.agent import Agent
    from localhpo.creator.hybrid import Hybrid
    from localhpo.creator.protocol import Creator
    from localhpo.llm.placement import ModelPlacer
    from localhpo.llm.protocol import Backend
    from localhpo.transfer import PastStudy, RetrievedConfig

WITH_TRANSFER = ("hybrid", "agent")
"""Creators that use past studies."""

NAMES = (*WITH_TRANSFER, BO, *ENGINES)

FIRST_OBJECTIVE_ONLY = (*WITH_TRANSFER, BO)
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
    past_studies: Sequence[PastStudy] = (),
    placer: ModelPlacer | None = None,
) -> Creator:
    """Return the Creator named in the task's settings; a model is loaded where it needs one.

    Args:
        task: its `creator` settings name the creator.
        backend: serves the model, in place of the one that the settings name. The caller closes
            it.
        retrieved: configurations of similar past studies (`transfer.retrieval`), for a Creator
            that uses them.
        past_studies: the studies themselves; they tell how well a chat model did in them, compared
            with the optimizer.
        placer: asked for memory before the model is loaded.

    Raises:
        InputError: no Creator has that name, or the one named cannot search the space or cannot
            use past studies as the settings say.
        MissingExtraError: it needs a package that is not installed. (A hybrid whose
            `on_model_error` is `engine` does without the model where neither a backend nor a
            model was named, and says so with each proposal.)
        ModelError: the model, or its server, cannot be used.
    """
    name = task.creator.name
    transfer = task.creator.transfer
    if transfer != "off" and name in (BO, *ENGINES):
        raise InputError(
            f'transfer = "{transfer}" needs a creator that uses past studies, '
            f"{' or '.join(WITH_TRANSFER)}; got {name!r}",
            hint='take another creator, or transfer = "off"',
        )
    if name in ENGINES:
        check_task(name, task)
        return Engine(name)
    if name == BO:
        return BayesianOptimizer()
    if name not in NAMES:
        raise InputError(
            f"a creator must be one of {', '.join(NAMES)}; got {name!r}",
            hint=did_you_mean(name, NAMES),
        )
    if name == "agent":
        opened = _open_backend(task, placer) if backend is None else backend
        return _open_agent(task, opened, retrieved, owned=backend is None)
    return _open_hybrid(task, backend, retrieved, past_studies, placer)


def _open_hybrid(
    task: Task,
    backend: Backend | None,
    retrieved: Sequence[RetrievedConfig],
    past_studies: Sequence[PastStudy],
    placer: ModelPlacer | None,
) -> Hybrid:
    from localhpo.creator.hybrid import Hybrid

    note = ""
    owned = backend is None
    try:
        backend = _open_backend(task, placer) if owned else backend
    except MissingExtraError as error:
        settings, default = task.creator, CreatorSettings()
        is_named = (settings.backend, settings.model) != (default.backend, default.model)
        if is_named or settings.on_model_error == "stop":
            raise
        note = f"no language model: {error} ({error.hint})"
    meta_data = open_meta_data(task, None if backend is None else backend.model)
    agent = None
    if backend is not None:
        agent = _open_agent(task, backend, retrieved, meta_data, owned=owned)
    return Hybrid(
        agent, note=note, retrieved=retrieved, meta_data=meta_data, past_studies=past_studies
    )


def _open_agent(
    task: Task,
    backend: Backend,
    retrieved: Sequence[RetrievedConfig],
    meta_data: MetaDataProposer | None = None,
    *,
    owned: bool,
) -> Agent:
    from localhpo.creator.agent import Agent
    from localhpo.creator.hybrid import propose_fallback

    return Agent(
        backend,
        on_model_error=task.creator.on_model_error,
        fallback=partial(propose_fallback, retrieved=retrieved, meta_data=meta_data),
        owned=owned,
        retrieved=retrieved,
    )


def _open_backend(task: Task, placer: ModelPlacer | None) -> Backend:
    """Open the backend that the settings name."""
    from localhpo.llm import open_backend
    from localhpo.llm.models import registry as model_registry
    from localhpo.llm.models import versions
    from localhpo.llm.registry import LOCAL_BACKENDS

    settings = task.creator
    in_host_memory = task.resources.sharing == "cpu" and settings.backend in LOCAL_BACKENDS
    model = settings.model
    if settings.transfer == "finetuned":
        model = versions.current_version_name(model or model_registry.DEFAULT)
    return open_backend(
        settings.backend,
        model=model,
        model_gpus=settings.model_gpus,
        url=settings.url,
        allow_remote=settings.allow_remote,
        device="cpu" if in_host_memory else None,
        placer=placer,
    )
