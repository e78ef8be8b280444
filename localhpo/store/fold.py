"""Lines of a spool, folded into what a study is.

The last word on a field of a trial holds. Measurements belong to one run of a trial: when it
was interrupted and started again (`Trial.restarts` grew), those of the earlier run are gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from localhpo.store import codec
from localhpo.store.records import Event
from localhpo.store.spool import Line
from localhpo.trial import Trial


@dataclass(slots=True)
class Fold:
    """The lines of a spool so far, its first one apart."""

    trials: dict[int, codec.Body] = field(default_factory=dict)
    """By number: the trial as `codec.encode_trial` writes it, complete."""
    rows: dict[int, list[list[Any]]] = field(default_factory=dict)
    """By number of the trial: the measurements of its present run, as rows."""
    events: list[codec.Body] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Fold:
        """Return the fold of these lines."""
        fold = cls()
        for kind, body in lines:
            fold.add(kind, body)
        return fold

    def add(self, kind: str, body: codec.Body) -> None:
        """Fold one more line in.

        Raises:
            ValueError: no line of a spool.
        """
        match kind:
            case "study":
                pass
            case "trial":
                self._add_trial(body)
            case "measurements":
                number = body["trial"]
                if body["run"] == self.trials[number]["restarts"]:
                    self.rows.setdefault(number, []).extend(body["rows"])
            case "event":
                self.events.append(body)
            case _:
                raise ValueError(f"a line of unknown kind {kind!r}")

    def _add_trial(self, changes: codec.Body) -> None:
        number = changes["number"]
        known = self.trials.get(number, {})
        if changes.get("restarts", 0) > known.get("restarts", 0):
            self.rows.pop(number, None)
        self.trials[number] = {**known, **changes}

    def decoded_trials(self) -> list[Trial]:
        """Return the trials by number."""
        return [
            codec.decode_trial(body, map(codec.decode_measurement, self.rows.get(number, ())))
            for number, body in sorted(self.trials.items())
        ]

    def decoded_events(self) -> list[Event]:
        """Return the events in the order of their arrival."""
        return [codec.decode_event(body) for body in self.events]

    def lines(self) -> Iterator[Line]:
        """Yield lines of which this is the fold."""
        for number, body in sorted(self.trials.items()):
            yield "trial", body
            if number in self.rows:
                run = body["restarts"]
                yield "measurements", {"trial": number, "run": run, "rows": self.rows[number]}
        for event in self.events:
            yield "event", event


def differences(expected: Fold, found: Fold) -> list[str]:
    """Say which trials, measurements and events are not the same in both."""
    kinds: list[tuple[str, Mapping[int, object], Mapping[int, object]]] = [
        ("trial", _in_order(expected.trials), _in_order(found.trials)),
        ("measurements of trial", expected.rows, found.rows),
        ("event", dict(enumerate(expected.events)), dict(enumerate(found.events))),
    ]
    return [
        f"{what} {key} should be {a.get(key)}, is {b.get(key)}"
        for what, a, b in kinds
        for key in sorted({*a, *b})
        if _canonical(a.get(key)) != _canonical(b.get(key))
    ]


def _in_order(trials: Mapping[int, codec.Body]) -> dict[int, codec.Body]:
    # Fields in the order of their declaration; a configuration keeps its own order, which counts.
    return {n: codec.encode_trial(codec.decode_trial(body)) for n, body in trials.items()}


def _canonical(value: object) -> str:
    # As text, where NaN equals itself; with integers as floats, as a DOUBLE column has them.
    return json.dumps(json.loads(codec.dumps(value), parse_int=float))
