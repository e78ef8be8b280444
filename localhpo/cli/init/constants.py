"""Evaluates constant expressions of a script without running it: `1e-3`, `2**5`, `DEFAULT_LR`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

_LARGEST_EXPONENT = 64
"""Larger exponents are no defaults of options, and could take forever to compute."""

_LONGEST_RANGE = 10_000

_DEEPEST = 50
"""Limit of names defined by other names: a script may define them in a circle."""

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}

Names = Mapping[str, ast.expr]
"""Names of a module and the expressions assigned to them."""


class NotConstantError(Exception):
    """An expression whose value is known only when the script runs."""


def module_names(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the names that are assigned at the top level of a module, with their expressions."""
    names: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name):
            names[target.id] = value
    return names


def evaluate_constant(node: ast.expr, names: Names, depth: int = 0) -> Any:
    """Return the value of a constant expression: a number, a text, or a list of them.

    Raises:
        NotConstantError: its value is known only when the script runs.
    """
    if depth > _DEEPEST:
        raise NotConstantError
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return evaluate_constant(names[name], names, depth + 1)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return _signed(sign, evaluate_constant(operand, names, depth + 1))
        case ast.BinOp(left=left, op=op, right=right):
            values = (
                evaluate_constant(left, names, depth + 1),
                evaluate_constant(right, names, depth + 1),
            )
            return _arithmetic(op, *values)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return [evaluate_constant(item, names, depth + 1) for item in items]
        case ast.Dict(keys=keys):
            return [evaluate_constant(key, names, depth + 1) for key in keys if key is not None]
        case ast.Call(func=func, args=args, keywords=[]):
            return _call(func, args, names, depth)
    raise NotConstantError


def _signed(sign: ast.unaryop, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotConstantError
    return -value if isinstance(sign, ast.USub) else value


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if not numbers or type(op) not in _BINARY:
        raise NotConstantError
    if isinstance(op, ast.Pow) and abs(right) > _LARGEST_EXPONENT:
        raise NotConstantError
    try:
        return _BINARY[type(op)](left, right)
    except ArithmeticError as exc:
        raise NotConstantError from exc


def _call(func: ast.expr, args: list[ast.expr], names: Names, depth: int) -> Any:
    """Evaluate the usual calls around a list of choices: `sorted(MODELS)`, `MODELS.keys()`."""
    match func, args:
        case ast.Name(id="list" | "tuple" | "set" | "sorted" as name), [inner]:
            items = evaluate_constant(inner, names, depth + 1)
            if not isinstance(items, list):
                raise NotConstantError
            return sorted(items, key=str) if name == "sorted" else items
        case ast.Attribute(value=inner, attr="keys"), []:
            return evaluate_constant(inner, names, depth + 1)
        case ast.Name(id="range"), [_, *_]:
            bounds = [evaluate_constant(arg, names, depth + 1) for arg in args]
            if all(type(bound) is int for bound in bounds) and len(bounds) <= 3:
                return _range(bounds)
    raise NotConstantError


def _range(bounds: list[int]) -> list[int]:
    try:
        numbers = range(*bounds)
    except ValueError as exc:
        raise NotConstantError from exc
    if len(numbers) > _LONGEST_RANGE:
        raise NotConstantError
    return list(numbers)
