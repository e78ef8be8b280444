"""Classical optimizers behind the Creator: samplers of Optuna."""

from localhpo.creator.optuna.engine import Engine, open_engine
from localhpo.creator.optuna.samplers import ENGINES

__all__ = ["ENGINES", "Engine", "open_engine"]
