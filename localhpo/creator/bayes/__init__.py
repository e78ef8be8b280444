"""Bayesian optimization of our own, which can lean on what a model has in mind."""

from localhpo.creator.bayes.density import Opinion
from localhpo.creator.bayes.optimizer import Bayes

__all__ = ["Bayes", "Opinion"]
