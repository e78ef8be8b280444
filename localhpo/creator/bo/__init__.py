"""LocalHPO's own Bayesian optimization, which can be guided by a prior."""

from localhpo.creator.bo.optimizer import BayesianOptimizer
from localhpo.creator.bo.prior import Prior, SamplePrior

__all__ = ["BayesianOptimizer", "Prior", "SamplePrior"]
