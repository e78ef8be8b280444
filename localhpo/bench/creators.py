"""Creators by the names under which they are compared.

    hybrid, agent, random, tpe, gp, cmaes      as a user selects them
    center+gp, center+tpe, ...                 the task's default, or the center, comes first
    hybrid-lessons                             the hybrid without a model: what a core install runs
    hybrid-no-model                            the same without what the model was taught
    hybrid@PATH, agent@PATH                    with another model: a folder, or a name
    hybrid:anonymous, agent:anonymous          nothing has a name, nothing is said of the task
    hybrid:no-history, agent:no-history        the model is shown no trials
    hybrid:retrieve, hybrid-no-model:retrieve  past studies are remembered (`pasts`)

Modifiers may be combined (`hybrid@models/new:anonymous`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from localhpo import resources
from localhpo.bench import sources
from localhpo.bench.anonymous import Anonymous
from localhpo.bench.blind import Blind, BlindBackend
from localhpo.creator import Creator, History, open_creator
from localhpo.creator.batch import one_by_one
from localhpo.creator.engines import KINDS
from localhpo.creator.hybrid import Hybrid, default
from localhpo.creator.teaching import open_teacher
from localhpo.errors import InputError, did_you_mean
from localhpo.experience import Memory, Past, recall
from localhpo.llm import Backend, cards, open_backend
from localhpo.task import CreatorSettings, Task
from localhpo.trial import Proposal

CENTER = "center+"
LESSONS = "hybrid-lessons"
NO_MODEL = "hybrid-no-model"
ASKING = ("hybrid", "agent")
"""Those that ask a model."""

BASES = (*ASKING, LESSONS, NO_MODEL, "bo", *KINDS, *(f"{CENTER}{kind}" for kind in KINDS))
RETRIEVE = "retrieve"
CONTROLS = ("anonymous", "no-history")
MODIFIERS = (*CONTROLS, RETRIEVE)

DEFAULT = ("hybrid", NO_MODEL, "center+gp", "gp", "tpe", "random")
"""The controls of DESIGN section 7 that tell most, for a first look."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A Creator by name, taken apart."""

    name: str
    base: str
    model: str | None
    """Another model than the built-in one; None where it is that, or none is asked."""
    modifiers: tuple[str, ...]

    @property
    def asks_a_model(self) -> bool:
        """Whether a backend must be open."""
        return self.base in ASKING


def parse(name: str) -> Choice:
    """Return what a name means.

    Raises:
        InputError: no Creator has that name, or a modifier does not fit it.
    """
    rest, modifiers = name, list[str]()
    while (parts := rest.rpartition(":"))[2] in MODIFIERS:
        rest = parts[0]
        modifiers.insert(0, parts[2])
    base, at, model = rest.partition("@")
    if base not in BASES or (at and not model):
        raise InputError(
            f"a creator must be one of {', '.join(BASES)}, where {' and '.join(ASKING)} may be "
            f"followed by @MODEL, :{' or :'.join(CONTROLS)}; got {name!r}",
            hint=did_you_mean(base, BASES),
        )
    retrieves = base == NO_MODEL and not at and set(modifiers) == {RETRIEVE}
    if (at or modifiers) and base not in ASKING and not retrieves:
        raise InputError(
            f"{base} asks no model, so it takes no {'model' if at else 'modifier'}; got {name!r}",
            hint=f"leave it at {base}",
        )
    return Choice(name, base, model or None, tuple(modifiers))


def make(
    choice: Choice, task: Task, backend: Backend | None, pasts: Sequence[Past] = ()
) -> Creator:
    """Return the Creator for a task; the caller closes it.

    Args:
        choice: which.
        task: what is tuned; its own settings of a Creator are not heeded.
        backend: serves the model, where the Creator asks one; it stays open.
        pasts: studies that a Creator with `:retrieve` remembers; at least one then.

    Raises:
        InputError: the Creator cannot search the space, or has nothing to remember.
        MissingExtraError: it needs a package that is not installed.
    """
    check_pasts(choice, pasts)
    known = pasts if RETRIEVE in choice.modifiers else ()
    memories = recall(task, known)
    if choice.base in (LESSONS, NO_MODEL):
        teacher = open_teacher(task, None) if choice.base == LESSONS else None
        return Hybrid(None, memories=memories, teacher=teacher)
    if choice.base.startswith(CENTER):
        return CenterFirst(choice.base, _open(choice.base.removeprefix(CENTER), task, None))
    if choice.asks_a_model and backend is None:
        raise ValueError(f"{choice.name} asks a model, and was given no backend")
    if "anonymous" in choice.modifiers:
        return Anonymous(
            task,
            lambda hidden: make(_without(choice, "anonymous"), hidden, backend, pasts),
            choice.name,
        )
    if "no-history" in choice.modifiers and backend is not None:
        blind = BlindBackend(backend)
        return Blind(_open(choice.base, task, blind, memories, known), blind, choice.name)
    return _open(choice.base, task, backend, memories, known)


def check_pasts(choice: Choice, pasts: Sequence[Past]) -> None:
    """Check that a Creator that remembers has something to remember.

    Raises:
        InputError: it has not.
    """
    if RETRIEVE in choice.modifiers and not pasts:
        raise InputError(
            f"{choice.name} remembers past studies, and there are none here",
            hint="scripts/measure_experience.py makes some and compares with and without them",
        )


def _without(choice: Choice, modifier: str) -> Choice:
    left = tuple(one for one in choice.modifiers if one != modifier)
    return dataclasses.replace(choice, modifiers=left)


def _open(
    name: str, task: Task, backend: Backend | None, memories: Sequence[Memory] = (),
    pasts: Sequence[Past] = (),
) -> Creator:  # fmt: skip
    task = dataclasses.replace(task, creator=CreatorSettings(name=name))
    return open_creator(task, backend=backend, memories=memories, pasts=pasts)


class CenterFirst:
    """The task's default, or the center of the space, before an engine's own proposals."""

    def __init__(self, name: str, engine: Creator) -> None:
        self.name = name
        self._engine = engine

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals. Raises as the engine does."""
        return one_by_one(self._one, history, n)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _one(self, history: History) -> Proposal:
        if history.trials:
            return self._engine.propose(history, 1)[0]
        return default(history, "the default or the center of the space")


class Backends:
    """The models of one process: each is opened once, whoever asks it."""

    def __init__(self) -> None:
        self._open: dict[str | None, Backend] = {}

    def of(self, choice: Choice) -> Backend | None:
        """Return the backend that a Creator asks; None where it asks none.

        Raises:
            MissingExtraError: it needs a package that is not installed.
            ModelError: the model cannot be used.
        """
        if not choice.asks_a_model:
            return None
        if choice.model not in self._open:
            self._open[choice.model] = open_backend("transformers", model=choice.model)
        return self._open[choice.model]

    def close(self) -> None:
        """Close them all."""
        while self._open:
            self._open.popitem()[1].close()


@cache
def backends() -> Backends:
    """Return the models of this process."""
    return Backends()


def model_digest(choice: Choice) -> str:
    """Return the digest of a Creator's model, of its files as they are; empty for none.

    Raises:
        InputError: there is no such model.
    """
    if not choice.asks_a_model:
        return ""
    return cards.fingerprint(cards.find(choice.model or cards.DEFAULT))


def digest(choice: Choice) -> str:
    """Return a hash of what decides a Creator's proposals: results of another are stale.

    Its source, Optuna, where it asks a model the prompts and the model, and the built-in model for
    its lessons. That is more than need be: a changed message makes results stale, a changed result
    never passes for an old one.
    """
    words = [choice.base, sources.digest(_home(choice)), f"optuna {metadata.version('optuna')}"]
    if choice.asks_a_model:
        words += [_prompts_digest(), model_digest(choice), *choice.modifiers]
    if choice.asks_a_model or choice.base == LESSONS:
        words.append(cards.fingerprint(cards.find(cards.DEFAULT)))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _home(choice: Choice) -> str:
    """Return the module that a Creator lives in."""
    if choice.base.removeprefix(CENTER) in KINDS:
        return "localhpo.creator.engines.engine"
    return "localhpo.creator.opening"


@cache
def _prompts_digest() -> str:
    texts = [path.read_bytes() for path in sorted(resources.folder("prompts").glob("*.j2"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()
