"""LocalHPO: hyperparameter tuning with a language model on your own machine.

Public names are resolved when they are first used; importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localhpo.errors import LocalHPOError
    from localhpo.objective import Constraint, Objective
    from localhpo.reporter import report
    from localhpo.sampler import LocalHPOSampler
    from localhpo.space import Categorical, Float, Int, Ordinal, Space
    from localhpo.study import Study, tune
    from localhpo.task import Budget, CreatorSettings, PrunerSettings, Resources, Task, load_task
    from localhpo.trial import Origin, Proposal, State, Trial

__version__ = "0.2.0.dev0"

_HOMES = {
    "localhpo.errors": ("LocalHPOError",),
    "localhpo.objective": ("Constraint", "Objective"),
    "localhpo.reporter": ("report",),
    "localhpo.sampler": ("LocalHPOSampler",),
    "localhpo.space": ("Categorical", "Float", "Int", "Ordinal", "Space"),
    "localhpo.study": ("Study", "tune"),
    "localhpo.task": ("Budget", "CreatorSettings", "PrunerSettings", "Resources", "Task"),
    "localhpo.trial": ("Origin", "Proposal", "State", "Trial"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Budget",
    "Categorical",
    "Constraint",
    "CreatorSettings",
    "Float",
    "Int",
    "LocalHPOError",
    "LocalHPOSampler",
    "Objective",
    "Ordinal",
    "Origin",
    "Proposal",
    "PrunerSettings",
    "Resources",
    "Space",
    "State",
    "Study",
    "Task",
    "Trial",
    "load_task",
    "report",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "load_task":
        return importlib.import_module("localhpo.task").load_task
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'localhpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
