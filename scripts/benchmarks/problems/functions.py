"""Known functions: the quadratics of the AgentHPO paper, classic test functions, and mixed ones.

All but the quadratics have numbered variants, in which the function is shifted, so that its optimum
is neither at the center nor in a corner of the space. Number 0 is the function as in textbooks
(https://www.sfu.ca/~ssurjano/optimization.html).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space
from localhpo.task import Task
from localhpo.trial import Config
from scripts.benchmarks.problems.dims import Array
from scripts.benchmarks.problems.problem import Problem, rng_of

VERSION = 1
"""Increased when a function or its shifts change."""

MARGIN = 0.1
"""Share of each range, at both ends, in which no variant has its optimum."""


@dataclass(frozen=True)
class Function:
    """A function of numbers, or of a configuration in unit coordinates."""

    parameters: tuple[Parameter, ...]
    value: Callable[[Array], Array]
    """Rows of numbers -> values; lower is better."""
    at: tuple[float, ...]
    """Coordinates of the optimum, or of one of several."""
    optimum: float
    background: str
    unit: bool = False
    """Whether `value` takes differences to the optimum in the unit cube (`Space.encode`) instead of
    numbers."""


def names() -> tuple[str, ...]:
    """Return the names of all functions."""
    return tuple(FUNCTIONS)


def make(name: str, variant: int) -> Problem:
    """Return a variant of a function as a problem."""
    function = FUNCTIONS[name]
    space = Space(function.parameters)
    shift = _compute_shift(space, function, name, variant)

    def evaluate_many(configs: Sequence[Config]) -> Array:
        return np.asarray(function.value(_points(space, function, configs) - shift))

    full = f"function/{name}/{variant}"
    return Problem(
        name=full,
        task=Task(
            name=name, command=(), objectives=(Objective("f", "minimize"),), space=space,
            background=function.background,
        ),
        evaluate_many=evaluate_many,
        definition={"function": name, "variant": variant, "version": VERSION},
        optimum=function.optimum,
    )  # fmt: skip


def _points(space: Space, function: Function, configs: Sequence[Config]) -> Array:
    if function.unit:
        return np.array([space.encode(config) for config in configs])
    return np.array([[float(config[name]) for name in space.names] for config in configs])


def _compute_shift(space: Space, function: Function, name: str, variant: int) -> Array:
    """Return the shift of each coordinate; the optimum stays away from the bounds."""
    rng = rng_of("shift", name, variant)
    if function.unit:
        # The optimum is a valid configuration; variant 0 has it at the first values.
        place = rng.uniform(MARGIN, 1.0 - MARGIN, len(space.columns))
        return space.encode(space.decode(place if variant else 0.0 * place))
    start = np.array(function.at)
    if variant == 0:
        return np.zeros_like(start)
    ranges = [(p.low, p.high) for p in space if isinstance(p, Float | Int)]
    low, high = np.array(ranges, dtype=float).T
    return np.asarray(low + (high - low) * rng.uniform(MARGIN, 1.0 - MARGIN, len(low)) - start)


def _floats(count: int, low: float, high: float) -> tuple[Parameter, ...]:
    return tuple(Float(f"x{i + 1}", low, high) for i in range(count))


def _quadratic(x: float, y: float, reach: float) -> Function:
    return Function(
        (Float("x", -reach, reach), Float("y", -reach, reach)),
        lambda rows: (rows[:, 0] - x) ** 2 + (rows[:, 1] - y) ** 2,
        (x, y),
        0.0,
        "A quadratic function of two numbers.",
    )


def _branin(rows: Array) -> Array:
    x, y = rows.T
    bend = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return np.asarray(bend**2 + 10 * (1 - 1 / (8 * math.pi)) * np.cos(x) + 10)


_HARTMANN_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_HARTMANN_AT = (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)


def _hartmann6(rows: Array) -> Array:
    inner = (_HARTMANN_A * (rows[:, None, :] - _HARTMANN_P) ** 2).sum(axis=2)
    return np.asarray(-np.exp(-inner) @ np.array([1.0, 1.2, 3.0, 3.2]))


def _rosenbrock(rows: Array) -> Array:
    a, b = rows[:, :-1], rows[:, 1:]
    return np.asarray((100 * (b - a**2) ** 2 + (1 - a) ** 2).sum(axis=1))


def _ackley(rows: Array) -> Array:
    far = -20 * np.exp(-0.2 * np.sqrt((rows**2).mean(axis=1)))
    waves = -np.exp(np.cos(2 * math.pi * rows).mean(axis=1))
    return np.asarray(far + waves + 20 + math.e)


def _styblinski_tang(rows: Array) -> Array:
    return np.asarray((rows**4 - 16 * rows**2 + 5 * rows).sum(axis=1) / 2)


def _bowl(rows: Array) -> Array:
    """Weighted squares of the distances in the unit cube; the first coordinate counts most."""
    weights = 1.0 / (1.0 + np.arange(rows.shape[1]))
    return np.asarray((weights * rows**2).sum(axis=1))


def _ridge(rows: Array) -> Array:
    """A diagonal valley in the first two coordinates, squares of the distances in the others."""
    valley = 9 * (rows[:, 0] + rows[:, 1]) ** 2 + 0.3 * (rows[:, 0] - rows[:, 1]) ** 2
    return np.asarray(valley + 0.5 * (rows[:, 2:] ** 2).sum(axis=1))


def _unit(parameters: Sequence[Parameter], value: Callable[[Array], Array], words: str) -> Function:
    return Function(tuple(parameters), value, (), 0.0, words, unit=True)


_MIXED: Mapping[str, Function] = {
    "mixed-log4": _unit(
        [
            Float("a", 1e-5, 1.0, log=True),
            Int("n", 8, 1024, log=True),
            Ordinal("b", (16, 32, 64, 128, 256)),
            Categorical("kind", ("red", "green", "blue")),
        ],
        _bowl,
        "A function of mixed arguments.",
    ),
    "mixed-ridge5": _unit(
        [
            Float("rate", 1e-4, 1e-1, log=True),
            Int("steps", 10, 2000, log=True),
            Float("share", 0.0, 1.0),
            Int("level", 1, 12),
            Categorical("mode", ("plain", "bent")),
        ],
        _ridge,
        "A function of mixed arguments, two of which trade off.",
    ),
    "mixed-ints3": _unit(
        [Int("i", 0, 30), Int("j", 1, 100, log=True), Categorical("on", (True, False))],
        _bowl,
        "A function of two whole numbers and a switch.",
    ),
}

FUNCTIONS: Mapping[str, Function] = {
    "quadratic-2-3": _quadratic(2.0, 3.0, 5.0),
    "quadratic-3-5": _quadratic(3.0, 5.0, 10.0),
    "branin": Function(
        (Float("x1", -5.0, 10.0), Float("x2", 0.0, 15.0)),
        _branin, (math.pi, 2.275), 0.39788735772973816, "A function of two numbers.",
    ),
    "hartmann6": Function(
        _floats(6, 0.0, 1.0), _hartmann6, _HARTMANN_AT, -3.32237, "A function of six numbers.",
    ),
    "rosenbrock4": Function(
        _floats(4, -2.048, 2.048), _rosenbrock, (1.0,) * 4, 0.0, "A function of four numbers.",
    ),
    "ackley5": Function(
        _floats(5, -32.768, 32.768), _ackley, (0.0,) * 5, 0.0, "A function of five numbers.",
    ),
    "styblinski-tang3": Function(
        _floats(3, -5.0, 5.0), _styblinski_tang, (-2.903534,) * 3, 3 * -39.16616570377142,
        "A function of three numbers.",
    ),
    **_MIXED,
}  # fmt: skip
"""Functions by name."""
