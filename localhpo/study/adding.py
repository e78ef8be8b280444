"""Many trials that were run elsewhere, recorded at once (`Study.add_trial` takes one)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.executor.protocol import Outcome
from localhpo.store import Store
from localhpo.study.inbox import Inbox
from localhpo.study.session import Session
from localhpo.task import Task
from localhpo.trial import ADDED, Config, Measurement, Proposal

IMPORTED = "imported"
"""Kind of the event that says what came from where."""


@dataclass(frozen=True, slots=True)
class Told:
    """A trial as it is told of: its configuration is canonical, and new to the study."""

    config: Config
    outcome: Outcome
    measurements: tuple[Measurement, ...] = ()
    note: str = ""
    """Where it comes from."""


def add_trials(
    store: Store,
    key: str,
    task: Task,
    trials: Sequence[Told],
    message: str,
    data: Mapping[str, Any],
) -> None:
    """Record trials in a study, which is created where there is none.

    Args:
        store: where the study is.
        key: `<task>/<study>`.
        task: of the study.
        trials: they cost its budget nothing.
        message: what the study's record says of it.
        data: the same for programs, as JSON.

    Raises:
        StudyLockedError: another process writes this study.
        StoreError: the store cannot be written.
    """
    session = Session(store, key, task, Inbox(Path(store.study_folder(key)) / "inbox"))
    try:
        for told in trials:
            ledger = session.ledger
            proposal = Proposal(told.config, origin=ADDED, note=told.note)
            trial = ledger.start(ledger.queue(proposal))
            if told.measurements:
                ledger.measure(trial.number, told.measurements)
            ledger.end(trial.number, told.outcome)
        session.writer.event(IMPORTED, message, data=data)
    finally:
        session.close()
