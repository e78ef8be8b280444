"""LocalHPO's own Bayesian optimization, which can be guided by a prior."""

from localhpo.creator.bayes.optimizer import BayesianOptimizer
from localhpo.creator.bayes.prior import Prior, SamplePrior

__all__ = ["BayesianOptimizer", "Prior", "SamplePrior"]
