"""Opens the Creator that a task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from localhpo.creator import teaching
from localhpo.creator.bayes import Bayes
from localhpo.creator.bayes.optimizer import NAME as BO
from localhpo.creator.engines import KINDS, Engine, check
from localhpo.errors import InputError, MissingExtraError, did_you_mean
from localhpo.task import CreatorSettings, Task

if TYPE_CHECKING:
    from localhpo.creator.agent import Agent
    from localhpo.creator.hybrid import Hybrid
    from localhpo.creator.protocol import Creator
    from localhpo.creator.teaching import Teacher
    from localhpo.experience import Memory, Past
    from localhpo.llm.hosting import Host
    from localhpo.llm.protocol import Backend

REMEMBER = ("hybrid", "agent")
"""Those that make use of past studies."""

NAMES = (*REMEMBER, BO, *KINDS)


def open_creator(
    task: Task,
    *,
    backend: Backend | None = None,
    memories: Sequence[Memory] = (),
    pasts: Sequence[Past] = (),
    host: Host | None = None,
) -> Creator:
    """Return the Creator named in the task's settings; a model is loaded where it needs one.

    Args:
        task: its `creator` settings say which.
        backend: serves the model, in place of the one that the settings name. It stays the
            caller's to close.
        memories: what was good in past studies (`experience.recall`), for a Creator that
            remembers.
        pasts: the studies themselves: how a model that talks did in them, beside the optimizer.
        host: asked for room before the model is loaded.

    Raises:
        InputError: no Creator has that name, or the one named cannot search the space or cannot
            remember what it is to.
        MissingExtraError: it needs a package that is not installed. (A hybrid whose
            `on_model_error` is `engine` does without the model where neither a backend nor a
            model was named, and says so each time.)
        ModelError: the model, or its server, cannot be used.
    """
    name = task.creator.name
    experience = task.creator.experience
    if experience != "off" and name in (BO, *KINDS):
        raise InputError(
            f'experience = "{experience}" needs a creator that remembers, {" or ".join(REMEMBER)}; '
            f"got {name!r}",
            hint='take another creator, or experience = "off"',
        )
    if name in KINDS:
        check(name, task.space)
        return Engine(name)
    if name == BO:
        return Bayes()
    if name not in NAMES:
        raise InputError(
            f"a creator must be one of {', '.join(NAMES)}; got {name!r}",
            hint=did_you_mean(name, NAMES),
        )
    if name == "agent":
        served = _backend(task, host) if backend is None else backend
        return _agent(task, served, memories, owned=backend is None)
    return _hybrid(task, backend, memories, pasts, host)


def _hybrid(
    task: Task, backend: Backend | None, memories: Sequence[Memory], pasts: Sequence[Past],
    host: Host | None,
) -> Hybrid:  # fmt: skip
    from localhpo.creator.hybrid import Hybrid

    note = ""
    owned = backend is None
    try:
        backend = _backend(task, host) if owned else backend
    except MissingExtraError as error:
        settings, usual = task.creator, CreatorSettings()
        is_named = (settings.backend, settings.model) != (usual.backend, usual.model)
        if is_named or settings.on_model_error == "stop":
            raise
        note = f"no language model: {error} ({error.hint})"
    teacher = teaching.open_teacher(task, None if backend is None else backend.model)
    agent = None if backend is None else _agent(task, backend, memories, teacher, owned=owned)
    return Hybrid(agent, note=note, memories=memories, teacher=teacher, pasts=pasts)


def _agent(
    task: Task,
    backend: Backend,
    memories: Sequence[Memory],
    teacher: Teacher | None = None,
    *,
    owned: bool,
) -> Agent:
    from localhpo.creator.agent import Agent
    from localhpo.creator.hybrid import stand_in

    return Agent(
        backend,
        on_model_error=task.creator.on_model_error,
        stand_in=partial(stand_in, memories=memories, teacher=teacher),
        owned=owned,
        memories=memories,
    )


def _backend(task: Task, host: Host | None) -> Backend:
    """Return a backend that serves the model that the settings name."""
    from localhpo.llm import cards, open_backend, versions
    from localhpo.llm.opening import PLACED

    settings = task.creator
    in_host_memory = task.resources.sharing == "cpu" and settings.backend in PLACED
    model = settings.model
    if settings.experience == "finetuned":
        model = versions.named(model or cards.DEFAULT)
    return open_backend(
        settings.backend,
        model=model,
        model_gpus=settings.model_gpus,
        url=settings.url,
        allow_remote=settings.allow_remote,
        device="cpu" if in_host_memory else None,
        host=host,
    )
