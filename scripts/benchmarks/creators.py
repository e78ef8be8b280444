"""Opens Creators by the names under which they are compared.

    hybrid, agent, random, tpe, gp, cmaes      as a user selects them
    center+gp, center+tpe, ...                 the task's default, or the center, comes first
    hybrid-meta                                the hybrid without a model: what a core install runs
    hybrid-no-model                            the same without meta-data
    hybrid@PATH, agent@PATH                    with another model: a folder, or a name; a chat model
                                               of hybrid is asked three times for each prompt
    hybrid:anonymous, agent:anonymous          names and background are hidden from it
    hybrid:no-history, agent:no-history        the model is shown no trials
    hybrid:retrieve, hybrid-no-model:retrieve  with past studies (`past_studies`)

Modifiers may be combined (`hybrid@models/new:anonymous`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from localhpo.creator import Creator, open_creator
from localhpo.creator.hybrid import HybridCreator
from localhpo.creator.meta_data import open_meta_data
from localhpo.creator.optuna import ENGINES
from localhpo.errors import InputError, did_you_mean
from localhpo.llm import Backend, open_backend
from localhpo.store import paths
from localhpo.task import CreatorSettings, Task
from localhpo.transfer import PastStudy, RetrievedConfig, retrieve_configs
from scripts.benchmarks.controls import (
    AnonymousCreator,
    CenterFirstCreator,
    NoHistoryBackend,
    NoHistoryCreator,
    StoredDrawsBackend,
)
from scripts.benchmarks.results import rename_creator

CENTER = "center+"
META = "hybrid-meta"
NO_MODEL = "hybrid-no-model"
WITH_MODEL = ("hybrid", "agent")
"""Creators that ask a model."""

BASES = (*WITH_MODEL, META, NO_MODEL, "bo", *ENGINES, *(f"{CENTER}{kind}" for kind in ENGINES))
RETRIEVE = "retrieve"
CONTROLS = ("anonymous", "no-history")
MODIFIERS = (*CONTROLS, RETRIEVE)

DEFAULT = ("hybrid", NO_MODEL, "center+gp", "gp", "tpe", "random")
"""Creators of a first comparison: the hybrid and the most telling controls."""


@dataclass(frozen=True, slots=True)
class CreatorChoice:
    """The parts of a Creator's name."""

    name: str
    base: str
    model: str | None
    """Name or folder of the model; None for the built-in one, or where none is asked."""
    modifiers: tuple[str, ...]

    @property
    def uses_model(self) -> bool:
        """Whether it asks a model, and so needs a backend."""
        return self.base in WITH_MODEL


def parse_name(name: str) -> CreatorChoice:
    """Return the parts of a name.

    Raises:
        InputError: no Creator has that name, or it does not take the modifier.
    """
    name = rename_creator(name)
    rest, modifiers = name, list[str]()
    while (parts := rest.rpartition(":"))[2] in MODIFIERS:
        rest = parts[0]
        modifiers.insert(0, parts[2])
    base, at, model = rest.partition("@")
    if base not in BASES or (at and not model):
        raise InputError(
            f"a creator must be one of {', '.join(BASES)}, where {' and '.join(WITH_MODEL)} may be "
            f"followed by @MODEL, :{' or :'.join(CONTROLS)}; got {name!r}",
            hint=did_you_mean(base, BASES),
        )
    retrieves = base == NO_MODEL and not at and set(modifiers) == {RETRIEVE}
    if (at or modifiers) and base not in WITH_MODEL and not retrieves:
        raise InputError(
            f"{base} asks no model, so it takes no {'model' if at else 'modifier'}; got {name!r}",
            hint=f"write {base}",
        )
    return CreatorChoice(name, base, model or None, tuple(modifiers))


def make_creator(
    choice: CreatorChoice,
    task: Task,
    backend: Backend | None,
    past_studies: Sequence[PastStudy] = (),
) -> Creator:
    """Return the Creator for a task; the caller closes it.

    Args:
        choice: the Creator.
        task: the task to tune; its own `creator` settings are ignored.
        backend: serves the model, where the Creator asks one; it stays open.
        past_studies: past studies for a Creator with `:retrieve`, which needs at least one.

    Raises:
        InputError: the Creator cannot search the space, or has no past studies to use.
        MissingExtraError: it needs a package that is not installed.
    """
    check_past_studies(choice, past_studies)
    known = past_studies if RETRIEVE in choice.modifiers else ()
    retrieved = retrieve_configs(task, known)
    if choice.base in (META, NO_MODEL):
        meta_data = open_meta_data(task, None) if choice.base == META else None
        return HybridCreator(None, meta_data, retrieved)
    if choice.base.startswith(CENTER):
        return CenterFirstCreator(choice.base, _open(choice.base.removeprefix(CENTER), task, None))
    if choice.uses_model and backend is None:
        raise ValueError(f"{choice.name} asks a model, and was given no backend")
    if "anonymous" in choice.modifiers:
        return AnonymousCreator(
            task,
            lambda hidden: make_creator(
                _without(choice, "anonymous"), hidden, backend, past_studies
            ),
            choice.name,
        )
    if "no-history" in choice.modifiers and backend is not None:
        blind = NoHistoryBackend(backend)
        return NoHistoryCreator(_open(choice.base, task, blind, retrieved), blind, choice.name)
    return _open(choice.base, task, backend, retrieved)


def check_past_studies(choice: CreatorChoice, past_studies: Sequence[PastStudy]) -> None:
    """Check that a Creator with `:retrieve` has past studies.

    Raises:
        InputError: it has none.
    """
    if RETRIEVE in choice.modifiers and not past_studies:
        raise InputError(
            f"{choice.name} needs past studies, and this command has none",
            hint="python -m scripts.benchmarks.measure.transfer makes some, and compares",
        )


def _without(choice: CreatorChoice, modifier: str) -> CreatorChoice:
    left = tuple(one for one in choice.modifiers if one != modifier)
    return dataclasses.replace(choice, modifiers=left)


def _open(
    name: str, task: Task, backend: Backend | None, retrieved: Sequence[RetrievedConfig] = ()
) -> Creator:
    task = dataclasses.replace(task, creator=CreatorSettings(name=name))
    return open_creator(task, backend=backend, retrieved=retrieved)


class Backends:
    """The open models of one process; each is opened once."""

    def __init__(self) -> None:
        self._open: dict[str | None, Backend] = {}

    def get(self, choice: CreatorChoice) -> Backend | None:
        """Return the backend of a Creator; None where it asks no model.

        Raises:
            MissingExtraError: it needs a package that is not installed.
            ModelError: the model cannot be used.
        """
        if not choice.uses_model:
            return None
        if choice.model not in self._open:
            self._open[choice.model] = open_backend("transformers", model=choice.model)
        backend = self._open[choice.model]
        if backend.model.prompt == "compact" or choice.base != "hybrid":
            return backend
        return StoredDrawsBackend(backend, paths.default_home() / "bench" / "draws")

    def close(self) -> None:
        """Close all models."""
        while self._open:
            self._open.popitem()[1].close()


@cache
def process_backends() -> Backends:
    """Return the open models of this process."""
    return Backends()
