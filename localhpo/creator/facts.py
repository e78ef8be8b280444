"""Facts of a study for a prompt, already in their final spelling.

`context.build_facts` derives them from a history; `prompt.render_messages` renders them. Training
data of models is rendered from the same `Facts` by the same templates.
"""

from __future__ import annotations

from dataclasses import dataclass

from localhpo.objective import Direction


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
    value: str
    """Value of the first objective: four significant digits, more where the best two need them;
    empty where there is none."""
    quality: int | None
    """0 (worst known) to 9 (best known) by rank among the trials with a value; None without one."""
    cause: str
    """Why it failed; empty otherwise."""
    summary: str
    """The Executor's write-up."""
    other_results: str = ""
    """Values of the other objectives and violated constraints; empty where there are none."""


@dataclass(frozen=True, slots=True)
class RetrievedFact:
    """A configuration that was good in a past study of a similar task."""

    study: str
    config: str
    """`Space.text` of it, in the space of the task at hand."""
    metric: str
    """Metric of that study."""
    value: str
    similarity: str
    """0 to 1, two decimals."""
    reasons: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a prompt may say about a study."""

    task: str
    background: str
    metric: str
    """Name of the first objective, by which trials are ranked."""
    direction: Direction
    parameters: tuple[ParameterFact, ...]
    trials: tuple[TrialFact, ...]
    """Finished trials that are shown, worst to best: failed ones first, then by value."""
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
    other_objectives: tuple[str, ...] = ()
    """Direction and name of each objective after the first: `minimize size`."""
    constraints: tuple[str, ...] = ()
    """`latency_ms <= 200`."""
    retrieved: tuple[RetrievedFact, ...] = ()
    """What was good elsewhere, largest weight first. Only the template `propose` shows it."""
