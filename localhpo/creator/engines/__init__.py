"""Classical optimizers behind the Creator: Optuna's random, TPE, GP and CMA-ES."""

from localhpo.creator.engines.engine import Engine
from localhpo.creator.engines.samplers import KINDS, check, prepare

__all__ = ["KINDS", "Engine", "check", "prepare"]
