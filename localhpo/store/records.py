"""What the store keeps beside trials: the record of a study, and its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WaitCause = Literal["device", "memory", "cpus", "gpus", "turn", "model", "loading"]
"""What a free slot or a waiting trial waits for: a key of `waited_s` in events of kind `accounts`.

`device`: every slot has a running trial.
"""

WAIT_TEXTS: Mapping[str, str] = {
    "device": "a running trial to end",
    "memory": "free memory",
    "cpus": "CPUs that another study uses",
    "gpus": "GPUs that another study uses",
    "turn": "another study's turn",
    "model": "a proposal",
    "loading": "the model to load",
}
"""What is waited for, as text after "waited 3.2 s for"."""


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study: the trials of one task under one set of settings."""

    name: str
    """`<task>/<study>`, unique in the store; `paths.study_name` makes it."""
    task_name: str
    settings: Mapping[str, Any]
    """What may not change while the study lasts, as JSON: space, objectives, command, creator,
    seed, ..."""
    created_at: float
    """Seconds since the epoch (UTC)."""
    version: str
    """Version of LocalHPO that created the study."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event in a study, such as a warning or a change of how memory is shared."""

    time: float
    """Seconds since the epoch (UTC)."""
    kind: str
    """One word or two, for filtering: `resumed`, `model failed`, ..."""
    message: str
    """One sentence for a person."""
    trial: int | None = None
    """Number of the trial it is about, if it is about one."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Details, as JSON."""
