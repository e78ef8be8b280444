"""What the record should say of the model's server."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from localhpo.scheduler.sharing import Decision, Numbers

Act = Literal["sleep", "stop", "leave", "wake", "start"]
"""What a server did; one that other studies use is left to them where it would be stopped, and
used again where it would be started."""

_DONE: Mapping[Act, str] = {
    "sleep": "the server went to sleep, to make room for a trial",
    "stop": "the server was stopped, to make room for a trial",
    "leave": "the server was left to other studies, for a trial that cannot run beside it",
    "wake": "the server was woken, to be asked",
    "start": "the server is there again, to be asked",
}


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened."""

    kind: Literal["sharing", "note", "warning"]
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Bulletin:
    """Collects what happens; the worker adds to it while the loop takes from it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._news: deque[News] = deque()

    def take(self) -> list[News]:
        """Return what happened since the last call."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def warn(self, message: str) -> None:
        """Say that something is not as it should be."""
        self._news.append(News("warning", message))

    def decided(self, decision: Decision, numbers: Numbers) -> None:
        """Tell how memory is shared from now on, why, and the numbers behind it."""
        data = {"mode": decision.mode, **dataclasses.asdict(numbers)}
        self._news.append(News("sharing", f"{decision.mode}: {decision.reason}", data))

    def did(
        self, act: Act, seconds: float, before_mb: float | None, after_mb: float | None
    ) -> None:
        """Tell what the server did, how long that took, and what was measured of its memory."""
        data: dict[str, Any] = {"act": act, "seconds": round(seconds, 3)}
        message = f"{_DONE[act]}: it took {seconds:.1f} s"
        if act in ("wake", "start"):
            if after_mb is not None:
                data["held_mb"] = round(after_mb, 1)
                message += f", and holds {after_mb:.0f} MB"
        elif act != "leave" and before_mb is not None and after_mb is not None:
            data |= {"freed_mb": round(before_mb - after_mb, 1), "held_mb": round(after_mb, 1)}
            message += f", and freed {before_mb - after_mb:.0f} of {before_mb:.0f} MB"
        self._news.append(News("sharing", message, data))
