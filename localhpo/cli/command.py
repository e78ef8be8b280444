"""Commands whose help ends with examples, and options that take a name of a registry."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from localhpo.plugins import Registry


class Command(click.Command):
    """A command whose help has examples. A test runs every example."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = tuple(examples)
        """Shell lines; text after `#` is a comment."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without wrapping, so that they can be copied."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


class Group(Command, click.Group):
    """A group whose help has examples."""


class RegisteredName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A name of a registry, which is imported when a value or the help is asked for."""

    name = "name"

    def __init__(self, registry: str) -> None:
        """Take the place of a registry, as "module:attribute"."""
        self._place = registry

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Return the name. Raises as `Registry.check`."""
        self._registry.check(value)
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """Return all names."""
        return f"[{'|'.join(self._registry.names)}]"

    @property
    def _registry(self) -> Registry[Any]:
        registry: Registry[Any] = pkgutil.resolve_name(self._place)
        return registry
