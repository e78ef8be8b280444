"""Checks that a study goes on under the settings that it was started with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from localhpo.errors import StudyChangedError
from localhpo.objective import Constraint, Objective
from localhpo.space import Space
from localhpo.task import Task


def check_same(key: str, before: Task, now: Task) -> None:
    """Refuse to go on with a study under other settings; the budget may change.

    Raises:
        StudyChangedError: names what changed.
    """
    changes = list(_changes(before, now))
    if changes:
        raise StudyChangedError(
            f"study {key} was started with other settings: {'; '.join(changes)}"
        )


def _changes(before: Task, now: Task) -> Iterator[str]:
    if before.space.signature() != now.space.signature():
        yield from _space_changes(before.space, now.space)
    for what, old, new in (
        ("fixed", dict(before.fixed), dict(now.fixed)),
        ("objectives", _describe(before.objectives), _describe(now.objectives)),
        ("constraints", _describe(before.constraints), _describe(now.constraints)),
        ("value", before.value, now.value),
        ("command", list(before.command), list(now.command)),
        ("creator", before.creator.name, now.creator.name),
        ("backend", before.creator.backend, now.creator.backend),
        ("model", before.creator.model, now.creator.model),
        ("transfer", before.creator.transfer, now.creator.transfer),
        ("seed", before.seed, now.seed),
    ):
        if old != new:
            yield f"{what} was {old!r}, is {new!r}"


def _describe(goals: Sequence[Objective | Constraint]) -> str:
    return ", ".join(goal.describe() for goal in goals) or "none"


def _space_changes(before: Space, now: Space) -> Iterator[str]:
    old, new = _meaning(before), _meaning(now)
    for name in sorted(old.keys() - new.keys()):
        yield f"space no longer has {name!r}"
    for name in sorted(new.keys() - old.keys()):
        yield f"space also has {name!r}"
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            yield f"space {name!r} was {old[name]}, is {new[name]}"
    if old == new:
        yield "space has its parameters in another order"


def _meaning(space: Space) -> dict[str, Any]:
    """Return the table of a space without keys that only explain it."""
    return {
        name: {key: value for key, value in row.items() if key not in ("help", "default")}
        for name, row in space.to_table().items()
    }
