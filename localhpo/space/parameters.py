"""The four kinds of hyperparameters."""

from typing import TypeAlias

from localhpo.space.choices import Categorical, Ordinal
from localhpo.space.numeric import Float, Int

Parameter: TypeAlias = Float | Int | Ordinal | Categorical

Discrete: TypeAlias = Int | Ordinal | Categorical
"""A parameter on which others may depend."""

__all__ = ["Categorical", "Discrete", "Float", "Int", "Ordinal", "Parameter"]
