"""The search space: parameters, conditions, the grid of values and the unit cube.

    space = Space([
        Float("learning_rate", 1e-4, 1e-1, log=True),
        Categorical("booster", ("gbtree", "dart")),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",)}),
    ])
    space.text(space.default())   # {"learning_rate":3.16e-3,"booster":"gbtree"}

`localhpo.space.optuna` converts from and to Optuna's distributions.
"""

from localhpo.space.parameters import Categorical, Float, Int, Ordinal, Parameter
from localhpo.space.space import Space
from localhpo.space.values import Value, spell_briefly

__all__ = ["Categorical", "Float", "Int", "Ordinal", "Parameter", "Space", "Value", "spell_briefly"]
