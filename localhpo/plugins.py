"""Registries of what can be chosen by name: built-in implementations, and those of plug-ins.

A plug-in is an installed package with an entry point in the group of a registry. There is a
registry for creators (`localhpo.creator.registry`), for backends (`localhpo.llm.registry`) and for
pruners (`localhpo.scheduler.pruning`). Each name stands for a factory, a function or a class that
makes the thing. A factory declares as parameters which of the registry's options it takes, and is
called with those by keyword:

    def open_creator(task, retrieved):  # takes two of the options of a creator
        return MyCreator(task.space, retrieved)

Nothing is imported before it is needed: built-in factories are written as "module:attribute".
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from localhpo.errors import InputError, LocalHPOError, PluginError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A plug-in cannot be used; everything else works."""


class Registry(Generic[T]):
    """Factories of one kind of thing, by name.

    Args:
        kind: What the factories make, for messages, e.g. "creator".
        built_in: Name -> "module:attribute" of a factory that ships with LocalHPO.
        options: Names of the options that a factory may take.
    """

    def __init__(self, kind: str, built_in: Mapping[str, str], options: Sequence[str]) -> None:
        self.kind = kind
        self.group = f"localhpo.{kind}s"
        """Entry-point group of its plug-ins."""
        self.built_in = built_in
        self._options = tuple(options)
        self._loaded: dict[str, Callable[..., T]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All names: the built-in ones, then those of plug-ins."""
        return (*self.built_in, *self.plugins)

    @functools.cached_property
    def plugins(self) -> Mapping[str, EntryPoint]:
        """Entry points of installed plug-ins by name, not imported. A built-in name is not lost."""
        from importlib.metadata import entry_points  # slow, and not needed by `localhpo --help`

        found: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=self.group), key=_describe):
            if point.name in self.built_in:
                _warn(f"{self._label(point)} is ignored: LocalHPO has a {self.kind} of that name")
            elif point.name in found:
                _warn(f"{self._label(point)} is ignored: {_describe(found[point.name])} has it too")
            else:
                found[point.name] = point
        return found

    def load(self, name: str) -> Callable[..., T]:
        """Return the factory of a name.

        Raises:
            InputError: there is no such name.
            PluginError: the plug-in of that name cannot be imported.
        """
        if name not in self._loaded:
            self._loaded[name] = self._import(name)
        return self._loaded[name]

    def check(self, name: str) -> None:
        """Check that a name can be used, and warn of plug-ins that cannot be imported.

        Raises: as `load`.
        """
        for broken, cause in self.import_plugins().items():
            if broken != name:
                _warn(str(cause))
        if name not in self.built_in:
            self.load(name)

    def import_plugins(self) -> dict[str, PluginError]:
        """Import all plug-ins; return those that cannot be, with the reason."""
        broken: dict[str, PluginError] = {}
        for name in self.plugins:
            try:
                self.load(name)
            except PluginError as error:
                broken[name] = error
        return broken

    def takes(self, name: str, option: str) -> bool:
        """Return whether the factory of a name takes an option."""
        return option in self._parameters(name)

    def takers(self, option: str) -> tuple[str, ...]:
        """Return the built-in names whose factories take an option."""
        return tuple(name for name in self.built_in if self.takes(name, option))

    def make(self, name: str, **options: Any) -> T:
        """Call the factory of a name with those of the options that it takes.

        Raises:
            InputError, PluginError: as `load`.
            PluginError: the factory of a plug-in fails.
            Exception: what a built-in factory raises.
        """
        taken = {key: value for key, value in options.items() if self.takes(name, key)}
        with self.naming_plugin(name):
            return self.load(name)(**taken)

    @contextlib.contextmanager
    def naming_plugin(self, name: str) -> Iterator[None]:
        """Let an exception that the plug-in of a name raises say which plug-in it was.

        Errors of LocalHPO pass unchanged, and so does all that built-in implementations raise.

        Raises:
            PluginError: the plug-in raised something else.
        """
        try:
            yield
        except LocalHPOError:
            raise
        except (Exception, SystemExit) as error:
            if name not in self.plugins:
                raise
            label = self._label(self.plugins[name])
            raise PluginError(f"{label} failed: {type(error).__name__}: {error}") from error

    def _import(self, name: str) -> Callable[..., T]:
        if name in self.built_in:
            built_in: Callable[..., T] = pkgutil.resolve_name(self.built_in[name])
            return built_in
        if name not in self.plugins:
            raise InputError(
                f"a {self.kind} must be one of {', '.join(self.names)}; got {name!r}",
                hint=did_you_mean(name, self.names),
            )
        point = self.plugins[name]
        try:
            factory: Callable[..., T] = point.load()
            self._check_parameters(factory)
        # Code of others: whatever it raises concerns this plug-in only, even the wish to exit.
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self._label(point)} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        return factory

    def _check_parameters(self, factory: Callable[..., T]) -> None:
        """Refuse a factory that asks for what no factory is given."""
        for parameter in inspect.signature(factory).parameters.values():
            if parameter.default is parameter.empty and parameter.name not in self._options:
                known = ", ".join(self._options)
                raise TypeError(f"its parameters must be among {known}; got {parameter.name!r}")

    def _parameters(self, name: str) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.load(name)).parameters

    def _label(self, point: EntryPoint) -> str:
        return f"the {self.kind} {point.name!r} of {_describe(point)}"


def _describe(point: EntryPoint) -> str:
    """Return the package of a plug-in, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _warn(message: str) -> None:
    # The place is always this module, so that Python shows each message once.
    warnings.warn(message, PluginWarning, stacklevel=2)
