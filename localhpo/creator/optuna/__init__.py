"""Classical optimizers behind the Creator: samplers of Optuna."""

from localhpo.creator.optuna.engine import Engine
from localhpo.creator.optuna.samplers import ENGINES, check_task, import_requirements

__all__ = ["ENGINES", "Engine", "check_task", "import_requirements"]
