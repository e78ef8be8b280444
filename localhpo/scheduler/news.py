"""What the record should say of the model's server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened."""

    kind: Literal["sharing", "note", "warning"]
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)
