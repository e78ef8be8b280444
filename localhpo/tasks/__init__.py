"""Ready tasks: one folder each, with a task.toml and a training script of a user's kind."""

from __future__ import annotations

from pathlib import Path

from localhpo.errors import TaskError, did_you_mean

_HERE = Path(__file__).resolve().parent


def available() -> list[str]:
    """Return the names of the ready tasks."""
    return sorted(path.parent.name for path in _HERE.glob("*/task.toml"))


def find(name: str) -> Path:
    """Return the task file of a ready task.

    Raises:
        TaskError: there is none of that name.
    """
    names = available()
    if name not in names:
        raise TaskError(
            f"there is no ready task called {name!r}: there is {', '.join(names)}",
            hint=did_you_mean(name, names) or "a task of your own: give its task.toml",
        )
    return _HERE / name / "task.toml"
