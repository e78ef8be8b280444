"""Builds the exact grammar of the answers for a space, in llguidance's dialect of Lark.

The grammar accepts canonical texts only: every value has one spelling, bounds are exact, keys
are in order, there is no white space, and every repetition is bounded, so that every generated
text ends.

Each rule is a point of the walk over the parameters (`localhpo.space.conditions`): a position,
and the later parameters that are ruled out. A rule continues until the values of a parameter
lead to different points, or several paths meet; without conditions there is one rule.

https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from localhpo.grammar.numbers import NumberGrammar
from localhpo.space import Float, Int, Parameter, Space
from localhpo.space.conditions import RuledOut, Spans
from localhpo.space.values import spell_value

_Point: TypeAlias = tuple[int, RuledOut]

MAX_ANALYSIS = 600
"""Most characters of the analysis."""

MAX_EVIDENCE = 5
"""Most trial numbers that an answer may cite."""

_ANALYSIS = rf'/"([^"\\\x00-\x1f\x7f-\x9f]|\\["\\]){{1,{MAX_ANALYSIS}}}"/'
"""A JSON string without control characters; the only escapes are those of `"` and `\\`."""


def lark_grammar(space: Space, *, rationale: bool = False, trials: Sequence[int] = ()) -> str:
    """Return the grammar of the exact answer.

    Args:
        space: the space of the configuration.
        rationale: whether the answer is `{"analysis":...,"config":{...},"evidence":[...]}`
            and not the configuration alone.
        trials: the numbers that `evidence` may cite.
    """
    config = _ConfigRules(space)
    if not rationale:
        return "\n".join([f"start: {config.start}", *config.lines()]) + "\n"
    start = [
        _quoted('{"analysis":'), "ANALYSIS", _quoted(',"config":'), config.start,
        _quoted(',"evidence":['), "evidence", _quoted("]}"),
    ]  # fmt: skip
    terminals = [f"ANALYSIS: {_ANALYSIS}"]
    if trials:
        cited = f'TRIAL ("," TRIAL){{0,{MAX_EVIDENCE - 1}}}'
        numbers = " | ".join(_quoted(str(number)) for number in sorted(set(trials)))
        terminals += [f"evidence: ({cited})?", f"TRIAL: {numbers}"]
    else:
        start.remove("evidence")
    return "\n".join([f"start: {' '.join(start)}", *terminals, *config.lines()]) + "\n"


class _ConfigRules:
    """The rules and terminals of the configurations of one space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._numbers = NumberGrammar()
        self._names: dict[_Point, str] = {}
        self._rules: dict[str, tuple[tuple[str, ...], str]] = {}
        self._fields: dict[tuple[int, Spans], tuple[str, str]] = {}
        start = self._next(0, frozenset())
        self._arrivals = self._count_arrivals(start)
        self.start = self._rule(start)

    def lines(self) -> list[str]:
        """Return the definitions, one per line."""
        # llguidance allows 65,535 items of rules in all, so repeated sequences are shared.
        counts = Counter(fields for fields, _ in self._rules.values() if len(fields) > 1)
        shared = [fields for fields, count in counts.items() if count > 2]
        runs = {fields: f"run{index}" for index, fields in enumerate(shared)}
        rules = {
            name: " ".join([runs.get(fields, " ".join(fields)), tail]).lstrip()
            for name, (fields, tail) in self._rules.items()
        }
        rules |= {name: " ".join(fields) for fields, name in runs.items()}
        fields = dict(self._fields[key] for key in sorted(self._fields))
        definitions = {**rules, **fields, **self._numbers.terminals}
        return [f"{name}: {expression}" for name, expression in definitions.items()]

    def _next(self, position: int, out: RuledOut) -> _Point:
        """Return the point at the next active parameter, or at the end."""
        while position in out:
            (branch,) = self._space.branches(position, out)
            position, out = position + 1, branch.out
        return position, out

    def _count_arrivals(self, start: _Point) -> Counter[_Point]:
        """Count the edges of the walk that lead to each point."""
        arrivals = Counter([start])
        ahead = [start]
        while ahead:
            position, out = ahead.pop()
            if position == len(self._space):
                continue
            for branch in self._space.branches(position, out):
                point = self._next(position + 1, branch.out)
                arrivals[point] += 1
                if arrivals[point] == 1:
                    ahead.append(point)
        return arrivals

    def _rule(self, point: _Point) -> str:
        """Return the name of the rule that writes a configuration from a point to its end."""
        if point not in self._names:
            name = self._names[point] = f"config{len(self._names) or ''}"
            self._rules[name] = (), ""  # reserves its position before the rules that it refers to
            self._rules[name] = self._written(point)
        return self._names[point]

    def _written(self, point: _Point) -> tuple[tuple[str, ...], str]:
        """Return the fields of a rule, and what follows them."""
        fields: tuple[str, ...] = ()
        while point[0] < len(self._space):
            position, out = point
            paths = []
            for branch in self._space.branches(position, out):
                point = self._next(position + 1, branch.out)
                paths.append((self._field(position, branch.spans), point))
            if len(paths) > 1:
                choices = " | ".join(f"{field} {self._rule(point)}" for field, point in paths)
                return fields, f"({choices})"
            fields += (paths[0][0],)
            if self._arrivals[point] > 1 and point[0] < len(self._space):
                return fields, self._rule(point)
        return fields, '"}"'

    def _field(self, position: int, spans: Spans) -> str:
        """Return the name of the terminal for a key with some of its values."""
        if (position, spans) not in self._fields:
            parameter = self._space.parameters[position]
            has_all = spans == ((0, parameter.cardinality),)
            name = f"F{position}" if has_all else f"F{position}_{spans[0][0]}"
            key = _quoted(f"{',' if position else '{'}{spell_value(parameter.name)}:")
            texts = self._texts(parameter, spans)
            expression = f"{key} ({texts})" if " | " in texts else f"{key} {texts}"
            self._fields[position, spans] = name, expression
        return self._fields[position, spans][0]

    def _texts(self, parameter: Parameter, spans: Spans) -> str:
        """Return a Lark expression for the texts of some values of a parameter."""
        if isinstance(parameter, Float):
            return self._float_texts(parameter)
        if isinstance(parameter, Int):
            parts = [self._numbers.grid(parameter.grid.part(*span)) for span in spans]
        else:
            indices = (index for span in spans for index in range(*span))
            parts = [_quoted(parameter.spell(parameter.at(index))) for index in indices]
        return " | ".join(parts)

    def _float_texts(self, parameter: Float) -> str:
        parts = [_quoted(parameter.spell(bound)) for bound in parameter.off_grid_bounds]
        if parameter.grid.count:
            parts.append(self._numbers.grid(parameter.grid))
        return " | ".join(parts)


def _quoted(literal: str) -> str:
    """Return a text as a string literal of Lark."""
    # llguidance's lexer refuses DEL, which JSON does not escape.
    return json.dumps(literal, ensure_ascii=False).replace("\x7f", "\\u007f")
