"""Replay of a journal: its lines, applied one after the other, give the state of a study.

The last line that sets a field of a trial decides it. Measurements belong to one run of a trial:
when it was interrupted and started again (`Trial.restarts` grew), those of the earlier run are
dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from localhpo.store import serialization
from localhpo.store.journal import Line
from localhpo.store.records import Event
from localhpo.store.serialization import JsonObject
from localhpo.trial import Trial


@dataclass(slots=True)
class ReplayedStudy:
    """Trials, measurements and events of a study, as the lines so far make them."""

    trials: dict[int, JsonObject] = field(default_factory=dict)
    """By number: the trial as `serialization.encode_trial` wrote it, without fields that did not
    exist at that time."""
    measurements: dict[int, list[list[Any]]] = field(default_factory=dict)
    """By number of the trial: the measurements of its present run, as rows."""
    events: list[JsonObject] = field(default_factory=list)

    @classmethod
    def from_lines(cls, lines: Iterable[Line]) -> ReplayedStudy:
        """Return the study after these lines."""
        study = cls()
        for kind, body in lines:
            study.apply(kind, body)
        return study

    def apply(self, kind: str, body: JsonObject) -> None:
        """Apply one more line.

        Raises:
            ValueError: it is not a line of a journal.
        """
        match kind:
            case "study":
                pass
            case "trial":
                self._change_trial(body)
            case "measurements":
                number = body["trial"]
                if body["run"] == self.trials[number]["restarts"]:
                    self.measurements.setdefault(number, []).extend(body["rows"])
            case "event":
                self.events.append(body)
            case _:
                raise ValueError(f"a line of unknown kind {kind!r}")

    def _change_trial(self, changes: JsonObject) -> None:
        number = changes["number"]
        known = self.trials.get(number, {})
        if changes.get("restarts", 0) > known.get("restarts", 0):
            self.measurements.pop(number, None)
        self.trials[number] = {**known, **changes}

    def decode_trials(self) -> list[Trial]:
        """Return the trials by number, with their measurements."""
        return [
            serialization.decode_trial(body, self.measurements.get(number, ()))
            for number, body in sorted(self.trials.items())
        ]

    def decode_events(self) -> list[Event]:
        """Return the events in the order of their arrival."""
        return [Event(**body) for body in self.events]

    def to_lines(self) -> Iterator[Line]:
        """Yield lines whose replay gives this study."""
        for number, body in sorted(self.trials.items()):
            yield "trial", body
            if number in self.measurements:
                run, rows = body["restarts"], self.measurements[number]
                yield "measurements", {"trial": number, "run": run, "rows": rows}
        for event in self.events:
            yield "event", event


def find_differences(expected: ReplayedStudy, found: ReplayedStudy) -> list[str]:
    """Return a sentence for each trial, measurement and event that is not the same in both."""
    kinds: list[tuple[str, Mapping[int, object], Mapping[int, object]]] = [
        ("trial", _normalize(expected.trials), _normalize(found.trials)),
        ("measurements of trial", expected.measurements, found.measurements),
        ("event", dict(enumerate(expected.events)), dict(enumerate(found.events))),
    ]
    return [
        f"{what} {key} should be {a.get(key)}, is {b.get(key)}"
        for what, a, b in kinds
        for key in sorted({*a, *b})
        if _to_text(a.get(key)) != _to_text(b.get(key))
    ]


def _normalize(trials: Mapping[int, JsonObject]) -> dict[int, JsonObject]:
    # Fields in the order of their declaration; a configuration keeps its own order, which counts.
    return {
        number: serialization.encode_trial(serialization.decode_trial(body))
        for number, body in trials.items()
    }


def _to_text(value: object) -> str:
    # In a text, NaN equals itself. Integers become floats, as a DOUBLE column has them.
    return json.dumps(json.loads(serialization.dumps(value), parse_int=float))
