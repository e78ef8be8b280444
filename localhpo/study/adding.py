"""Many trials that were run elsewhere, recorded at once (`Study.add_trial` takes one)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localhpo.executor.protocol import Outcome
from localhpo.store import Store
from localhpo.study.session import Session
from localhpo.task import Task
from localhpo.trial import EXTERNAL, Config, Measurement, Proposal

IMPORTED = "imported"
"""Kind of the event that records an import."""


@dataclass(frozen=True, slots=True)
class ExternalTrial:
    """A trial that was run elsewhere: its configuration is canonical, and new to the study."""

    config: Config
    outcome: Outcome
    measurements: tuple[Measurement, ...] = ()
    note: str = ""
    """Where it comes from."""


def add_trials(
    store: Store,
    key: str,
    task: Task,
    trials: Sequence[ExternalTrial],
    message: str,
    data: Mapping[str, Any],
) -> None:
    """Record trials in a study, which is created where there is none.

    Args:
        store: where the study is.
        key: `<task>/<study>`.
        task: of the study.
        trials: they do not count against its budget.
        message: of the event that records the import.
        data: of that event, as JSON.

    Raises:
        StudyLockedError: another process writes this study.
        StoreError: the store cannot be written.
    """
    session = Session(store, key, task)
    try:
        for external in trials:
            trial_table = session.trial_table
            proposal = Proposal(external.config, origin=EXTERNAL, note=external.note)
            trial = trial_table.start(trial_table.queue(proposal))
            if external.measurements:
                trial_table.add_measurements(trial.number, external.measurements)
            trial_table.end(trial.number, external.outcome)
        session.writer.write_event(IMPORTED, message, data=data)
    finally:
        session.close()
