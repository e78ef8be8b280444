"""Reads the argparse options of a script from its source, without running it.

Supported are calls of `add_argument` with constant names, on parsers and their groups; the types
`int`, `float`, `str` and functions that read booleans; constant defaults and choices. Not
supported are options made in a loop or in another module, those of subcommands, and other
libraries (click, fire, ...), which are only recognized. Each option that is left out comes with
its line and the reason.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from localhpo.cli.init.constants import Names, NotConstantError, evaluate_constant, module_names
from localhpo.errors import InputError

OTHER_LIBRARIES = (
    "click", "fire", "typer", "absl", "hydra", "tyro", "jsonargparse", "simple_parsing", "docopt",
)  # fmt: skip

_SWITCHES = {
    "store_true": "a switch takes no value",
    "store_false": "a switch takes no value",
    "store_const": "a switch takes no value",
    "BooleanOptionalAction": "a switch takes no value",
    "count": "it counts how often it is given",
    "append": "it collects several values",
    "extend": "it collects several values",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a script."""

    name: str
    """The flag without its leading dashes."""
    flag: str
    """The flag: `--learning-rate`, `-b`; empty for a positional argument."""
    line: int
    kind: str = "str"
    """int, float, str or bool (`true` or `false`)."""
    default: bool | int | float | str | None = None
    choices: tuple[Any, ...] = ()
    help: str = ""
    required: bool = False
    why_not: str = ""
    """Why the option cannot be tuned; empty if it can."""

    @property
    def appendable(self) -> bool:
        """Whether it can be passed as `--name value`, the way LocalHPO appends parameters."""
        return self.flag == f"--{self.name}"


@dataclass(frozen=True, slots=True)
class UnreadCall:
    """A call of `add_argument` that could not be read, and why."""

    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Script:
    """The options and metrics of a script."""

    options: tuple[Option, ...] = ()
    unread: tuple[UnreadCall, ...] = ()
    metrics: tuple[str, ...] = ()
    """Names of the metrics passed to `report(...)`, in order of appearance."""
    read_by: str = ""
    """Library that reads the command line: `argparse`, another name, or empty."""


def read_script(source: str, filename: str) -> Script:
    """Return the options and metrics of a Python script.

    Raises:
        InputError: the source is not valid Python.
    """
    tree = _parse(source, filename)
    scope = _Scope(module_names(tree), _functions(tree), _subcommands(tree))
    options, unread = [], []
    for call in sorted(_calls(tree, "add_argument"), key=lambda call: call.lineno):
        try:
            option = _option(call, scope)
        except NotConstantError as exc:
            unread.append(UnreadCall(call.lineno, ast.unparse(call), str(exc)))
        else:
            options.append(option)
    return Script(
        options=_first_of_each(options),
        unread=tuple(unread),
        metrics=tuple(dict.fromkeys(_metrics(tree))),
        read_by=_library(tree, bool(options or unread)),
    )


def _first_of_each(options: Iterable[Option]) -> tuple[Option, ...]:
    """Return options with a name, each name once (a script may add one in several branches)."""
    named: dict[str, Option] = {}
    for option in options:
        if option.name:
            named.setdefault(option.name, option)
    return tuple(named.values())


@dataclass(frozen=True, slots=True)
class _Scope:
    """Definitions of the module around a call."""

    names: Names
    functions: Mapping[str, ast.AST]
    subcommands: frozenset[str]
    """Variables that hold the parser of a subcommand."""

    def constant(self, node: ast.expr | None) -> Any:
        return None if node is None else evaluate_constant(node, self.names)


def _parse(source: str, filename: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the script, such as an invalid escape
            return ast.parse(source, filename)
    except SyntaxError as exc:
        message = f"{filename}, line {exc.lineno}: not valid Python: {exc.msg}"
        raise InputError(
            message, hint="`localhpo init` without a script writes a template"
        ) from exc
    except ValueError as exc:  # a null byte
        raise InputError(f"{filename}: not valid Python: {exc}") from exc


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last_name(node.func) == name:
            yield node


def _last_name(node: ast.expr | None) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=func):
            return _last_name(func)
    return ""


def _functions(tree: ast.Module) -> dict[str, ast.AST]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _subcommands(tree: ast.Module) -> frozenset[str]:
    return frozenset(
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _last_name(node.value) == "add_parser"
        for target in node.targets
        if isinstance(target, ast.Name)
    )


def _option(call: ast.Call, scope: _Scope) -> Option:
    """Return the option that a call of `add_argument` adds."""
    if isinstance(call.func, ast.Attribute) and _last_name(call.func.value) in scope.subcommands:
        raise NotConstantError("it is an option of a subcommand")
    keywords = {word.arg: word.value for word in call.keywords if word.arg}
    flag, name = _flag(call, scope)
    action = _action(keywords.get("action"))
    if action in ("help", "version"):
        return Option(name="", flag=flag, line=call.lineno)
    option = Option(
        name=name,
        flag=flag,
        line=call.lineno,
        help=_help(keywords.get("help"), scope),
        required=_is_required(flag, keywords),
    )
    if why := _takes_no_value(flag, action, keywords):
        return replace(option, why_not=why)
    return _typed(option, keywords, scope)


def _flag(call: ast.Call, scope: _Scope) -> tuple[str, str]:
    """Return the flag to use, the long one where there is one, and its name."""
    try:
        flags = [evaluate_constant(arg, scope.names) for arg in call.args]
    except NotConstantError as exc:
        raise NotConstantError("its name is computed while the script runs") from exc
    if not flags or not all(isinstance(flag, str) and flag for flag in flags):
        raise NotConstantError("it has no name")
    flag = next((flag for flag in flags if flag.startswith("--")), flags[0])
    return (flag if flag.startswith("-") else ""), flag.lstrip("-")


def _action(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "store" if node is None else _last_name(node)


def _takes_no_value(flag: str, action: str, keywords: Mapping[str, ast.expr]) -> str:
    """Return why the option takes no single value, or an empty text."""
    if action in _SWITCHES:
        return _SWITCHES[action]
    if action != "store":
        return f"its action {action} is not supported"
    match keywords.get("nargs"):
        case None | ast.Constant(value="?"):
            return "" if flag else "it is a positional argument"
    return "it takes several values"


def _is_required(flag: str, keywords: Mapping[str, ast.expr]) -> bool:
    if flag:
        return ast.unparse(keywords.get("required", ast.Constant(False))) == "True"
    match keywords.get("nargs"):
        case ast.Constant(value="?" | "*"):
            return False
    return True


def _help(node: ast.expr | None, scope: _Scope) -> str:
    """Return the help text on one line, without argparse's placeholders."""
    try:
        text = scope.constant(node)
    except NotConstantError:
        return ""
    if not isinstance(text, str):
        return ""
    for marker in ("(default: %(default)s)", "(default %(default)s)", "%(default)s"):
        text = text.replace(marker, "")
    return " ".join(text.replace("%%", "%").split())


def _typed(option: Option, keywords: Mapping[str, ast.expr], scope: _Scope) -> Option:
    """Return the option with its type, default and choices, or with why it cannot be tuned."""
    try:
        default = scope.constant(keywords.get("default"))
    except NotConstantError:
        default = None
    if not isinstance(default, bool | int | float | str):
        default = None
    try:
        choices = scope.constant(keywords.get("choices")) or ()
    except NotConstantError:
        return replace(option, why_not="its choices are computed while the script runs")
    option = replace(option, choices=tuple(choices))
    type_node = keywords.get("type")
    if type_node is None:
        return _without_type(option, default)
    return _with_type(option, type_node, default, scope)


def _without_type(option: Option, default: Any) -> Option:
    """Return an option without a type: argparse passes text, whatever the default is."""
    others = [value for value in (*option.choices, default) if value is not None]
    if not all(isinstance(value, str) for value in others):
        return replace(
            option, default=default, why_not="it has no type, so that its values are texts"
        )
    return replace(option, kind="str", default=default)


def _with_type(option: Option, node: ast.expr, default: Any, scope: _Scope) -> Option:
    name = _last_name(node)
    if isinstance(node, ast.Name) and name == "bool":
        return replace(option, why_not="with type=bool every text is true, even `false`")
    definition = node if isinstance(node, ast.Lambda) else scope.functions.get(name)
    if definition is not None and (spelling := _boolean_spelling(definition)):
        return _boolean(option, spelling, default)
    if "bool" in name.lower():
        return _boolean(option, (True, False), default)
    kind = _kind(name, default)
    if not kind:
        return replace(
            option, default=default, why_not=f"its type {ast.unparse(node)} is not supported"
        )
    return replace(option, kind=kind, default=_of_kind(default, kind))


def _kind(name: str, default: Any) -> str:
    """Return the kind from the name of the type, else from the default."""
    words = name.lower().split("_")
    for kind in ("float", "int", "str"):
        if kind in words or name == f"Positive{kind.title()}":
            return kind
    if name in ("Path", "FileType"):
        return "str"
    if isinstance(default, bool) or not isinstance(default, int | float):
        return ""
    return type(default).__name__


def _of_kind(default: Any, kind: str) -> Any:
    """Return the default converted to the kind of its option, as argparse does for texts."""
    if kind == "float" and type(default) is int:
        return float(default)
    if isinstance(default, str) and kind in ("int", "float"):
        try:  # argparse converts a default that is text
            return int(default) if kind == "int" else float(default)
        except ValueError:
            return None
    return default


def _boolean(option: Option, spelling: tuple[Any, Any], default: Any) -> Option:
    """Return a boolean option; `spelling` is what it takes for true and for false."""
    known = default if not isinstance(default, str) else default.lower() in ("true", "1", "yes")
    if known is not None and not isinstance(spelling[0], bool):
        known = spelling[0] if known else spelling[1]
    kind = "bool" if isinstance(spelling[0], bool) else "str"
    return replace(option, kind=kind, choices=spelling, default=known)


def _boolean_spelling(definition: ast.AST) -> tuple[Any, Any] | None:
    """Return what a function that reads booleans takes for true and for false, or None."""
    texts = {node.value for node in ast.walk(definition) if isinstance(node, ast.Constant)}
    if "true" in texts:
        return True, False
    for yes, no in (("True", "False"), ("yes", "no"), ("1", "0")):
        if yes in texts:
            return yes, no
    return None


def _metrics(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the metrics passed to `report(...)`."""
    for call in sorted(_calls(tree, "report"), key=lambda call: call.lineno):
        for word in call.keywords:
            if word.arg is not None and word.arg != "step":
                yield word.arg
            elif isinstance(word.value, ast.Dict):  # **{"val/loss": loss}
                yield from (
                    key.value
                    for key in word.value.keys
                    if isinstance(key, ast.Constant) and isinstance(key.value, str)
                )


def _library(tree: ast.Module, has_arguments: bool) -> str:
    if has_arguments:
        return "argparse"
    imported = {name.split(".")[0] for name in _imports(tree)}
    return next((name for name in (*OTHER_LIBRARIES, "argparse") if name in imported), "")


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
