"""Conditions: the order of the parameters, and which of them are active.

`when` of a parameter names its parents and, for each, the values under which it may be active: all
parents must be active and have one of these values. Everything that uses conditions (counting, the
grammar, the schema) walks over the parameters in order, parents first. The only state of the walk
is the set of later parameters that are ruled out: a `Branch` maps a set of the current parameter's
values to the parameters that those values rule out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from localhpo.errors import ConfigurationError, SpaceError, did_you_mean
from localhpo.space.parameters import Discrete, Float, Int, Parameter
from localhpo.space.values import Identity, Value, identity_of, show_value

MAX_BRANCHES = 4096
"""Most combinations of branches of a space; a grammar or schema lists each of them."""

Spans: TypeAlias = tuple[tuple[int, int], ...]
"""Ranges (start, stop) of indices of a grid, without `stop`, in ascending order."""

RuledOut: TypeAlias = frozenset[int]
"""Positions of later parameters of the walk that are known to be inactive."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Values of one parameter that rule out the same parameters."""

    spans: Spans
    """Its values; empty where it is inactive."""
    out: RuledOut

    @property
    def count(self) -> int:
        """Number of its values."""
        return sum(stop - start for start, stop in self.spans)


def order_parameters(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Return the parameters in the order of declaration, but each after its parents.

    Raises:
        SpaceError: a name is declared twice, a parent is unknown, or there is a cycle.
    """
    place: dict[str, int] = {}
    for index, parameter in enumerate(parameters):
        if place.setdefault(parameter.name, index) != index:
            raise SpaceError(f"{parameter.name}: this name is declared twice")
    missing = [len(parameter.when) for parameter in parameters]
    children: list[list[int]] = [[] for _ in parameters]
    for index, parameter in enumerate(parameters):
        for parent in parameter.when:
            children[_place_of(parent, place, parameter)].append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    result = []
    while ready:
        index = heapq.heappop(ready)
        result.append(parameters[index])
        for child in children[index]:
            missing[child] -= 1
            if not missing[child]:
                heapq.heappush(ready, child)
    if len(result) < len(parameters):
        raise SpaceError(_cycle(parameters), hint="remove one of these conditions")
    return tuple(result)


def _place_of(parent: str, place: Mapping[str, int], child: Parameter) -> int:
    if parent not in place:
        raise SpaceError(
            f"{child.name}: when names {show_value(parent)}, which is not a parameter of the space",
            hint=nearest_or_all(parent, place),
        )
    return place[parent]


def _cycle(parameters: Sequence[Parameter]) -> str:
    by_name = {parameter.name: parameter for parameter in parameters}
    # Each parameter that could not be placed has a parent that could not be placed: going from
    # parent to parent must come back.
    placed: set[str] = set()
    while more := {p.name for p in parameters if set(p.when) <= placed} - placed:
        placed |= more
    path = [next(name for name in by_name if name not in placed)]
    while path[-1] not in path[:-1]:
        path.append(next(name for name in by_name[path[-1]].when if name not in placed))
    loop = path[path.index(path[-1]) :]
    return f"{loop[0]}: its condition leads back to itself: " + " needs ".join(loop)


@dataclass(frozen=True, slots=True)
class _Child:
    """A parameter that has a condition on the parent under consideration."""

    position: int
    needed: frozenset[Identity]
    """The `identity_of` of the values under which it may be active."""
    indices: frozenset[int]
    """The same values as indices of the parent's grid."""


class Conditions:
    """The conditions among parameters that are already in order."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Check the values of each condition, and that there are not too many branches."""
        self._parameters = tuple(parameters)
        self._children = _children(self._parameters)
        self._groups = [
            _grouped(parameter, children)
            for parameter, children in zip(self._parameters, self._children, strict=True)
        ]
        self.cardinality = self._count()

    def ruled_out(self, position: int, value: Value) -> Iterator[int]:
        """Yield the positions of the children that a canonical value of a parameter rules out."""
        for child in self._children[position]:
            if identity_of(value) not in child.needed:
                yield child.position

    def children(self, position: int) -> Iterator[int]:
        """Yield the positions of the parameters whose condition names this one."""
        for child in self._children[position]:
            yield child.position

    def branches(self, position: int, out: RuledOut) -> tuple[Branch, ...]:
        """Return the branches of the walk at a parameter; one without values if it is inactive."""
        ahead = frozenset(index for index in out if index > position)
        if position in out:
            return (Branch((), ahead.union(self.children(position))),)
        return tuple(Branch(spans, ahead | more) for spans, more in self._groups[position])

    def _count(self) -> int:
        """Return the number of configurations, walking all branches at once."""
        # Ruled-out parameters -> (combinations of branches, configurations) that lead there.
        states: dict[RuledOut, tuple[int, int]] = {frozenset(): (1, 1)}
        for position, parameter in enumerate(self._parameters):
            if all(position in out for out in states):
                raise SpaceError(f"{parameter.name}: its condition can never hold")
            following: dict[RuledOut, tuple[int, int]] = {}
            for out, (combinations, configurations) in states.items():
                for branch in self.branches(position, out):
                    before = following.get(branch.out, (0, 0))
                    following[branch.out] = (
                        before[0] + combinations,
                        before[1] + configurations * (branch.count or 1),
                    )
            states = following
            if sum(combinations for combinations, _ in states.values()) > MAX_BRANCHES:
                raise SpaceError(
                    f"the conditions must make at most {MAX_BRANCHES:,} combinations of branches: "
                    "the grammar lists each of them",
                    hint="remove conditions: a parameter that the script sometimes ignores does "
                    "little harm",
                )
        return sum(configurations for _, configurations in states.values())


def _children(parameters: Sequence[Parameter]) -> list[list[_Child]]:
    position = {parameter.name: index for index, parameter in enumerate(parameters)}
    children: list[list[_Child]] = [[] for _ in parameters]
    for index, parameter in enumerate(parameters):
        for name, values in parameter.when.items():
            parent = parameters[position[name]]
            if isinstance(parent, Float):
                raise SpaceError(
                    f"{parameter.name}: when names {name}, which is a float; "
                    "a condition can only be on a categorical, an ordinal or an int"
                )
            indices = frozenset(_index(parameter, parent, value) for value in values)
            needed = frozenset(identity_of(parent.at(index)) for index in indices)
            children[position[name]].append(_Child(index, needed, indices))
    return children


def _index(child: Parameter, parent: Discrete, value: Value) -> int:
    try:
        return parent.index(value)
    except ConfigurationError as exc:
        hint = ""
        if isinstance(value, str) and not isinstance(parent, Int):
            hint = nearest_or_all(value, [v for v in parent.values if isinstance(v, str)])
        raise SpaceError(f"{child.name}: when.{exc}", hint=hint) from None


def _grouped(parameter: Parameter, children: Sequence[_Child]) -> list[tuple[Spans, RuledOut]]:
    """Return the values of a parameter in groups that rule out the same children."""
    groups: dict[RuledOut, list[tuple[int, int]]] = {}

    def add(start: int, stop: int) -> None:
        if start < stop:
            out = frozenset(c.position for c in children if start not in c.indices)
            groups.setdefault(out, []).append((start, stop))

    done = 0
    for index in sorted({index for child in children for index in child.indices}):
        add(done, index)  # no condition names the values between
        add(index, index + 1)
        done = index + 1
    add(done, parameter.cardinality)
    return [(tuple(spans), out) for out, spans in groups.items()]


def nearest_or_all(word: str, known: Iterable[str]) -> str:
    """Return a hint: the most similar known word, or all of them where none is similar."""
    known = list(known)
    return did_you_mean(word, known) or (f"known: {', '.join(known)}" if known else "")
