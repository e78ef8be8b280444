"""What a prompt may say: the facts of a study, already in their final spelling.

`context.facts` derives them from a history; `prompt.messages` renders them. Training data of
models is rendered from the same `Facts` by the same templates.
"""

from __future__ import annotations

from dataclasses import dataclass

from localhpo.trial import Direction


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One hyperparameter as the space declares it."""

    name: str
    kind: str
    """float, int, ordinal or categorical."""
    log: bool
    low: str
    """Canonical text of the lower bound; empty for ordinal and categorical."""
    high: str
    step: str
    """In all its digits; empty where there is none."""
    values: tuple[str, ...]
    """Canonical texts of the choices; empty for float and int."""
    default: str
    """Canonical text; empty where the task names none."""
    help: str
    when: str
    """The condition in words, e.g. `booster is dart or gbtree`; empty for none."""


@dataclass(frozen=True, slots=True)
class TrialFact:
    """One trial of the history."""

    number: int
    state: str
    config: str
    """`Space.text` of its configuration."""
    score: str
    """Four significant digits, more where the best two need them; empty where there is none."""
    quality: int | None
    """0 (worst known) to 9 (best known) by rank among the scored trials; None without a score."""
    cause: str
    """Why it failed; empty otherwise."""
    summary: str
    """The Executor's write-up."""


@dataclass(frozen=True, slots=True)
class MemoryFact:
    """A configuration that was good in a past study of a similar task."""

    study: str
    config: str
    """`Space.text` of it, in the space of the task at hand."""
    metric: str
    """Of that study."""
    score: str
    similarity: str
    """0 to 1, two decimals."""
    reasons: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a prompt may say about a study."""

    task: str
    background: str
    metric: str
    direction: Direction
    parameters: tuple[ParameterFact, ...]
    trials: tuple[TrialFact, ...]
    """Finished trials that are shown, worst to best: failed ones first, then by score."""
    running: tuple[str, ...]
    """Configurations (texts) that run now or wait."""
    best: TrialFact | None
    shown: int
    """How many finished trials are shown, of `finished`."""
    finished: int
    remaining: int | None
    """Trials left in the budget; None where trials do not bound it."""
    fixed: tuple[tuple[str, str], ...] = ()
    """Name and text of what is not tuned, and has one value."""
    memories: tuple[MemoryFact, ...] = ()
    """What was good elsewhere, the weightiest first. Only the template `propose` shows it."""
