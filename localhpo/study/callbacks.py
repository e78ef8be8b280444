"""Keeps the trials of a `Study` up to date while its loop runs, and calls callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from localhpo.scheduler.events import Snapshot
from localhpo.store import Event
from localhpo.trial import COUNTED, Trial


class Callbacks:
    """Observer that calls callbacks once for each trial that has ended.

    Args:
        on_trials: called with all trials after each change.
        callbacks: called with each trial of this run that has ended, by number.
        before: the trials of earlier runs, which are not passed to callbacks again.
    """

    def __init__(
        self,
        on_trials: Callable[[tuple[Trial, ...]], None],
        callbacks: Sequence[Callable[[Trial], None]],
        before: Iterable[Trial],
    ) -> None:
        self._on_trials = on_trials
        self._callbacks = callbacks
        self._reported = {trial.number for trial in before if trial.state in COUNTED}

    def on_event(self, event: Event) -> None:
        """Ignore events."""

    def on_change(self, snapshot: Snapshot) -> None:
        """Pass on the trials; call every callback even where one raises.

        Raises:
            Exception: the first that a callback raised, after all were called.
        """
        self._on_trials(snapshot.trials)
        ended = [
            t for t in snapshot.trials if t.state in COUNTED and t.number not in self._reported
        ]
        errors: list[Exception] = []
        for trial in ended:
            self._reported.add(trial.number)
            for callback in self._callbacks:
                try:
                    callback(trial)
                except Exception as error:  # noqa: BLE001 - raised below
                    errors.append(error)
        if errors:
            raise errors[0]
