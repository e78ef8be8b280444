"""Registry of problems: opens them by name.

yahpo/<family>/<data set>/<metric>/full     a YAHPO surrogate; `crop`: a part of its space
function/<name>/<variant>                   a known function, shifted in one of many ways
yahpo/<family>/<data set>/<metric>/ordinal  the same on lists of ten values (lcbench)
taskset/<table>                             a table of TaskSet
grid/<table>/<spelling>                     a table of a whole space (see `grids`)
xgboost/<data set>, mlp/<data set>          small real trainings
table/<path>                                a CSV file of your own (see `tables`)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localhpo.errors import InputError, MissingExtraError, did_you_mean
from scripts.benchmarks.problems.problem import Problem

EXTRA = "bench"


@dataclass(frozen=True)
class DataFolders:
    """Folders that problems read from and write to."""

    data: Path | None
    """Folder of public data: YAHPO's surrogates and TaskSet's tables."""
    trainings: Path
    """Folder with the values of real trainings; it need not exist."""


def open_problem(name: str, folders: DataFolders) -> Problem:
    """Return a problem.

    Raises:
        InputError: no problem has that name, or the data folder lacks its files.
        MissingExtraError: it needs a package that is not installed.
    """
    kind, _, rest = name.partition("/")
    if kind not in _OPEN_BY_KIND:
        raise InputError(
            f"a problem must be named {', '.join(f'{k}/...' for k in _OPEN_BY_KIND)}; got {name!r}",
            hint=did_you_mean(kind, _OPEN_BY_KIND)
            or "`python -m scripts.benchmarks list SUITE` names those of a suite",
        )
    return _OPEN_BY_KIND[kind](name, rest, folders)


def check_requirements(names: Iterable[str], folders: DataFolders) -> None:
    """Check that the packages and the data folder that some problems need are there.

    Raises:
        InputError: the data folder is missing.
        MissingExtraError: a package is not installed.
    """
    kinds = dict.fromkeys(name.partition("/")[0] for name in names)
    for kind in kinds:
        if kind in _FOLDERS:
            _data_folder(kind, folders)
        _need_packages(kind)


_PACKAGES: Mapping[str, Sequence[str]] = {
    "yahpo": ("onnxruntime",),
    "xgboost": ("xgboost", "sklearn"),
    "mlp": ("xgboost", "sklearn"),
}
_FOLDERS = {"yahpo": "yahpo", "taskset": "taskset_adam8p", "grid": "tables"}
_SHOWN_AS = {"sklearn": "scikit-learn"}


def _need_packages(kind: str) -> None:
    for package in _PACKAGES.get(kind, ()):
        if importlib.util.find_spec(package) is None:
            shown = _SHOWN_AS.get(package, package)
            raise MissingExtraError(shown, f"the problems {kind}/...", EXTRA)


def _data_folder(kind: str, folders: DataFolders) -> Path:
    """Return the data folder, which holds the files of a kind of problem.

    Raises:
        InputError: it does not hold them, or was not named.
    """
    wanted = _FOLDERS[kind]
    if folders.data is None:
        raise InputError(
            f"the problems {kind}/... need the folder of public data that holds {wanted}/",
            hint="name it with --data DIR, or in LOCALHPO_DATA",
        )
    if not (folders.data / wanted).is_dir():
        raise InputError(
            f"the data folder must hold {wanted}/, which {folders.data} does not",
            hint="--data DIR, or LOCALHPO_DATA, names the folder",
        )
    return folders.data


def _yahpo(name: str, rest: str, folders: DataFolders) -> Problem:
    data = _data_folder("yahpo", folders)
    _need_packages("yahpo")
    from scripts.benchmarks.problems import surrogates

    scenarios = surrogates.scenarios(data)
    parts = rest.split("/")
    if len(parts) != 4:
        raise InputError(f"a problem of YAHPO is yahpo/FAMILY/DATASET/METRIC/full; got {name!r}")
    family, instance, target, variant = parts
    _check_known("family", name, family, scenarios)
    _check_known("data set", name, instance, scenarios[family].instances)
    _check_known("metric", name, target, scenarios[family].targets)
    for known in surrogates.VARIANTS:
        if variant == known:
            return surrogates.make(data, family, instance, target, known)
    raise _unknown_error("variant", name, variant, surrogates.VARIANTS)


def _function(name: str, rest: str, folders: DataFolders) -> Problem:  # noqa: ARG001 - all have one signature
    from scripts.benchmarks.problems import functions

    function, _, variant = rest.partition("/")
    _check_known("function", name, function, functions.names())
    if not (variant.isascii() and variant.isdigit()):
        raise InputError(
            f"a function is named with the number of its variant; got {name!r}",
            hint=f"for instance function/{function}/1",
        )
    return functions.make(function, int(variant))


def _taskset(name: str, rest: str, folders: DataFolders) -> Problem:
    data = _data_folder("taskset", folders)
    from scripts.benchmarks.problems import tables

    paths = {path.stem: path for path in sorted((data / _FOLDERS["taskset"]).glob("*.npz"))}
    _check_known("table", name, rest, paths)
    return tables.taskset(paths[rest])


def _grid(name: str, rest: str, folders: DataFolders) -> Problem:
    data = _data_folder("grid", folders)
    from scripts.benchmarks.problems import grids

    table, _, spelling = rest.partition("/")
    _check_known("table", name, table, grids.names(data))
    _check_known("spelling", name, spelling, grids.SPELLINGS)
    return grids.make(data, table, spelling)


def _training(name: str, rest: str, folders: DataFolders) -> Problem:
    learner = name.partition("/")[0]
    _need_packages(learner)
    from scripts.benchmarks.problems import datasets, trainings

    _check_known("data set", name, rest, datasets.names())
    return trainings.make(learner, rest, folders.trainings)


def _table(name: str, rest: str, folders: DataFolders) -> Problem:  # noqa: ARG001 - all have one signature
    from scripts.benchmarks.problems import tables

    return tables.own(Path(rest))


_OPEN_BY_KIND: Mapping[str, Callable[[str, str, DataFolders], Problem]] = {
    "yahpo": _yahpo,
    "function": _function,
    "taskset": _taskset,
    "grid": _grid,
    "xgboost": _training,
    "mlp": _training,
    "table": _table,
}


def _check_known(what: str, name: str, given: str, known: Iterable[str]) -> None:
    if given not in list(known):
        raise _unknown_error(what, name, given, known)


def _unknown_error(what: str, name: str, given: str, known: Iterable[str]) -> InputError:
    listed = list(known)
    shown = ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
    return InputError(
        f"the {what} of problem {name!r} must be one of {shown}; got {given!r}",
        hint=did_you_mean(given, listed),
    )
