"""From a space to the exact grammar of its answers, in llguidance's dialect of Lark.

The grammar accepts the canonical texts and nothing else: every value has one spelling, bounds
are exact, keys stand in order, there is no white space, and every repetition is bounded, so
that whatever chooses the tokens, the text ends.

Each rule is a point of the walk over the parameters (`localhpo.space.conditions`): a
position, and which parameters ahead are out. A rule goes on until values of a parameter lead
to different points; without conditions there is one rule.

https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from localhpo.grammar.numbers import Numbers
from localhpo.space import Float, Int, Parameter, Space
from localhpo.space.conditions import Out, Spans
from localhpo.space.values import spelled

MAX_ANALYSIS = 600
"""Characters of the analysis."""

MAX_EVIDENCE = 5
"""Trial numbers that an answer may cite."""

_ANALYSIS = rf'/"([^"\\\x00-\x1f\x7f-\x9f]|\\["\\]){{1,{MAX_ANALYSIS}}}"/'
"""A JSON string without control characters: of the escapes it needs two."""


def lark(space: Space, *, rationale: bool = False, trials: Sequence[int] = ()) -> str:
    """Return the grammar of the exact answer.

    Args:
        space: what the configuration is from.
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
        self._numbers = Numbers()
        self._names: dict[tuple[int, Out], str] = {}
        self._rules: dict[str, str] = {}
        self._terminals: dict[tuple[int, Spans], str] = {}
        self._values: dict[str, str] = {}
        self.start = self._rule(0, frozenset())

    def lines(self) -> list[str]:
        """Return the definitions, one per line."""
        definitions = {**self._rules, **self._values, **self._numbers.terminals}
        return [f"{name}: {expression}" for name, expression in definitions.items()]

    def _rule(self, position: int, out: Out) -> str:
        """Return the name of the rule that writes a configuration from a point to its end."""
        if (position, out) not in self._names:
            name = self._names[position, out] = f"config{len(self._names) or ''}"
            self._rules[name] = ""  # keeps its place, before the rules that it leads to
            self._rules[name] = self._expression(position, out)
        return self._names[position, out]

    def _expression(self, position: int, out: Out) -> str:
        parts: list[str] = []
        literal = ""
        for index in range(position, len(self._space)):
            branches = self._space.branches(index, out)
            if index not in out:
                literal += ("," if index else "{") + spelled(self._space.names[index]) + ":"
                if len(branches) > 1:
                    ways = " | ".join(
                        f"{self._value(index, branch.spans)} {self._rule(index + 1, branch.out)}"
                        for branch in branches
                    )
                    return " ".join([*parts, _quoted(literal), f"({ways})"])
                parts += [_quoted(literal), self._value(index, branches[0].spans)]
                literal = ""
            out = branches[0].out
        return " ".join([*parts, _quoted(literal + "}")])

    def _value(self, position: int, spans: Spans) -> str:
        """Return the name of the terminal for some of the values of a parameter."""
        if (position, spans) not in self._terminals:
            parameter = self._space.parameters[position]
            whole = spans == ((0, parameter.cardinality),)
            name = f"V{position}" if whole else f"V{position}_{spans[0][0]}"
            self._terminals[position, spans] = name
            self._values[name] = self._texts(parameter, spans)
        return self._terminals[position, spans]

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
        parts = [_quoted(parameter.spell(bound)) for bound in parameter.loose]
        if parameter.grid.count:
            parts.append(self._numbers.grid(parameter.grid))
        return " | ".join(parts)


def _quoted(literal: str) -> str:
    """Return a string of Lark that stands for a piece of text."""
    return json.dumps(literal, ensure_ascii=False)
