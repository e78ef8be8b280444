"""Keeps a `Study` up to date while its loop runs, and calls the user's callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from localhpo.scheduler.observer import Snapshot
from localhpo.store import Event
from localhpo.trial import COUNTED, Trial


class Callbacks:
    """An observer that hands on the trials, and each one that has ended once.

    Args:
        seen: told all trials after each change.
        callbacks: told each trial of this run that has ended, in the order of their numbers.
        before: the trials of earlier runs, which nobody is told again.
    """

    def __init__(
        self,
        seen: Callable[[tuple[Trial, ...]], None],
        callbacks: Sequence[Callable[[Trial], None]],
        before: Iterable[Trial],
    ) -> None:
        self._seen = seen
        self._callbacks = callbacks
        self._told = {trial.number for trial in before if trial.state in COUNTED}

    def on_event(self, event: Event) -> None:
        """Hear nothing: what counts is the change."""

    def on_change(self, snapshot: Snapshot) -> None:
        """Hand on the trials and tell of the ended ones; a callback that raises costs no other.

        Raises:
            Exception: the first that a callback raised, after all were called.
        """
        self._seen(snapshot.trials)
        ended = [t for t in snapshot.trials if t.state in COUNTED and t.number not in self._told]
        errors: list[Exception] = []
        for trial in ended:
            self._told.add(trial.number)
            for callback in self._callbacks:
                try:
                    callback(trial)
                except Exception as error:  # noqa: BLE001 - raised below
                    errors.append(error)
        if errors:
            raise errors[0]
