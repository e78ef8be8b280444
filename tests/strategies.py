"""Hypothesis strategies: any space, of every kind, with nested conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from localhpo.errors import SpaceError
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space, Value

names = st.one_of(
    st.text("abcxyz_.-", min_size=1, max_size=6),
    st.text(
        st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="{}"),
        min_size=1,
        max_size=4,
    ),
)

magnitudes = st.integers(-9, 6)


@st.composite
def numbers(draw: st.DrawFn) -> float:
    """A float as a person would write it (0.05, -3, 2.5e-8), or any at all."""
    if draw(st.integers(0, 3)):
        return float(f"{draw(st.integers(-1000, 1000))}e{draw(magnitudes)}")
    return draw(st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-299))


@st.composite
def ranges(draw: st.DrawFn, positive: bool = False) -> tuple[float, float]:
    """Two bounds; often one of them is 0, a round number, or the other."""
    low, high = draw(numbers()), draw(numbers())
    if positive:
        low, high = abs(low) or 1e-8, abs(high) or 4096.0
    if draw(st.integers(0, 9)) == 0:
        high = low
    return min(low, high), max(low, high)


@st.composite
def floats(draw: st.DrawFn, name: str) -> Float:
    kind = draw(st.sampled_from(["linear", "log", "step"]))
    if kind == "step":
        scale = draw(magnitudes)
        low, step = draw(st.integers(-999, 999)), draw(st.integers(1, 120))
        count, surplus = draw(st.integers(1, 40)), draw(st.integers(0, step - 1))
        bounds = [float(f"{n}e{scale}") for n in (low, low + step * count + surplus)]
        return Float(name, bounds[0], bounds[1], step=float(f"{step}e{scale}"))
    low_, high_ = draw(ranges(positive=kind == "log"))
    return Float(name, low_, high_, log=kind == "log")


@st.composite
def ints(draw: st.DrawFn, name: str) -> Int:
    low = draw(st.integers(-50, 50) | st.integers(-(10**7), 10**7) | st.just(4096))
    width = draw(st.integers(0, 12) | st.integers(0, 10**7))
    kind = draw(st.sampled_from(["linear", "log", "step"]))
    if kind == "log":
        low = abs(low) + 1
        return Int(name, low, low + width, log=True)
    step = draw(st.integers(1, max(1, min(width, 300)))) if kind == "step" else None
    return Int(name, low, low + width, step=step)


values: st.SearchStrategy[Value] = st.one_of(
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=5),
    st.sampled_from(["adam", "sgd", 'a"b', "1", "true", ""]),
    st.integers(-5, 512),
    st.floats(-1e6, 1e6),
)


def choices(name: str) -> st.SearchStrategy[Parameter]:
    lists = st.one_of(
        st.lists(values, min_size=1, max_size=6, unique=True),
        st.just([False, True]),
        st.lists(st.booleans() | st.text(max_size=2), min_size=1, max_size=3, unique=True),
    )
    lists = lists.filter(lambda chosen: "\0" not in "".join(map(str, chosen)))
    return st.builds(
        lambda kind, chosen: kind(name, tuple(chosen)),
        st.sampled_from([Ordinal, Categorical]),
        lists,
    )


def parameters(name: str = "x") -> st.SearchStrategy[Parameter]:
    """Any parameter without condition."""
    return st.one_of(floats(name), ints(name), choices(name))


@st.composite
def spaces(draw: st.DrawFn, max_size: int = 6, conditional: bool = True) -> Space:
    """Any space: parents and children in any order of declaration."""
    chosen: list[Parameter] = []
    for name in draw(st.lists(names, min_size=1, max_size=max_size, unique=True)):
        parameter = draw(parameters(name))
        when = draw(conditions(chosen)) if conditional else {}
        default = draw(st.none() | defaults(parameter))
        chosen.append(replace(parameter, when=when, default=default))
    try:
        return Space(draw(st.permutations(chosen)))
    except SpaceError as exc:
        # Conditions may contradict each other: e.g. a needs b = 1, c needs a and b = 2.
        assume("can never hold" not in str(exc))
        raise


@st.composite
def conditions(draw: st.DrawFn, earlier: list[Parameter]) -> dict[str, tuple[Value, ...]]:
    """A condition on none, one or two of the parameters that can be parents."""
    candidates = [p for p in earlier if not isinstance(p, Float)]
    if not candidates or not draw(st.booleans()):
        return {}
    parents = draw(st.lists(st.sampled_from(candidates), min_size=1, max_size=2, unique_by=id))
    when: dict[str, tuple[Value, ...]] = {}
    for parent in parents:
        indices = st.integers(0, parent.cardinality - 1)
        listed = draw(st.lists(indices, min_size=1, max_size=3, unique=True))
        when[parent.name] = tuple(parent.at(index) for index in listed)
    return when


@st.composite
def defaults(draw: st.DrawFn, parameter: Parameter) -> Any:
    """A default within the domain, on the grid or not."""
    value = parameter.draw(draw(st.floats(0, 1, exclude_max=True)))
    if isinstance(parameter, Float) and draw(st.booleans()):
        return min(max(value * 1.0001, parameter.low), parameter.high)
    return value


@st.composite
def spaces_with_configs(draw: st.DrawFn, **options: Any) -> tuple[Space, dict[str, Value]]:
    """A space and one of its configurations."""
    import numpy as np

    space = draw(spaces(**options))
    return space, space.sample(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
