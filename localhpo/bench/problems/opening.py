"""Opens problems by their names.

yahpo/<family>/<data set>/<metric>/full     a YAHPO surrogate; `crop`: a part of its space
function/<name>/<variant>                   a known function, moved in one of many ways
taskset/<table>                             a table of TaskSet
xgboost/<data set>, mlp/<data set>          small real trainings
table/<path>                                a CSV file of your own (see `tables`)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localhpo.bench.problems.problem import Problem
from localhpo.errors import InputError, MissingExtraError, did_you_mean

EXTRA = "bench"


@dataclass(frozen=True)
class Places:
    """Where problems find what they are made of."""

    data: Path | None
    """Folder of public data: YAHPO's surrogates and TaskSet's tables."""
    trainings: Path
    """Folder in which the scores of real trainings are kept; it need not exist."""


def open_problem(name: str, places: Places) -> Problem:
    """Return a problem.

    Raises:
        InputError: no problem has that name, or the data folder lacks what it needs.
        MissingExtraError: it needs a package that is not installed.
    """
    kind, _, rest = name.partition("/")
    if kind not in _OPENERS:
        raise InputError(
            f"a problem must be named {', '.join(f'{k}/...' for k in _OPENERS)}; got {name!r}",
            hint=did_you_mean(kind, _OPENERS)
            or "`localhpo bench list SUITE` names those of a suite",
        )
    return _OPENERS[kind](name, rest, places)


def check(names: Iterable[str], places: Places) -> None:
    """Check at once what the problems of a run need: packages, and the data folder.

    Raises:
        InputError: the data folder is missing.
        MissingExtraError: a package is not installed.
    """
    kinds = dict.fromkeys(name.partition("/")[0] for name in names)
    for kind in kinds:
        if kind in _FOLDERS:
            _data_folder(kind, places)
        _need_packages(kind)


_PACKAGES: Mapping[str, Sequence[str]] = {
    "yahpo": ("onnxruntime",),
    "xgboost": ("xgboost", "sklearn"),
    "mlp": ("xgboost", "sklearn"),
}
_FOLDERS = {"yahpo": "yahpo", "taskset": "taskset_adam8p"}
_SHOWN_AS = {"sklearn": "scikit-learn"}


def _need_packages(kind: str) -> None:
    for package in _PACKAGES.get(kind, ()):
        if importlib.util.find_spec(package) is None:
            shown = _SHOWN_AS.get(package, package)
            raise MissingExtraError(shown, f"the problems {kind}/...", EXTRA)


def _data_folder(kind: str, places: Places) -> Path:
    """Return the data folder, which holds what a kind of problem needs.

    Raises:
        InputError: it does not, or was not named.
    """
    wanted = _FOLDERS[kind]
    if places.data is None:
        raise InputError(
            f"the problems {kind}/... need the folder of public data that holds {wanted}/",
            hint="name it with --data DIR, or in LOCALHPO_DATA",
        )
    if not (places.data / wanted).is_dir():
        raise InputError(
            f"the data folder must hold {wanted}/, which {places.data} does not",
            hint="--data DIR, or LOCALHPO_DATA, names the folder",
        )
    return places.data


def _yahpo(name: str, rest: str, places: Places) -> Problem:
    data = _data_folder("yahpo", places)
    _need_packages("yahpo")
    from localhpo.bench.problems import surrogates

    scenarios = surrogates.scenarios(data)
    parts = rest.split("/")
    if len(parts) != 4:
        raise InputError(f"a problem of YAHPO is yahpo/FAMILY/DATASET/METRIC/full; got {name!r}")
    family, instance, target, variant = parts
    _known("family", name, family, scenarios)
    _known("data set", name, instance, scenarios[family].instances)
    _known("metric", name, target, scenarios[family].targets)
    for one in surrogates.VARIANTS:
        if variant == one:
            return surrogates.make(data, family, instance, target, one)
    raise _unknown("variant", name, variant, surrogates.VARIANTS)


def _function(name: str, rest: str, places: Places) -> Problem:  # noqa: ARG001 - one shape for all
    from localhpo.bench.problems import functions

    function, _, variant = rest.partition("/")
    _known("function", name, function, functions.names())
    if not (variant.isascii() and variant.isdigit()):
        raise InputError(
            f"a function is named with the number of its variant; got {name!r}",
            hint=f"for instance function/{function}/1",
        )
    return functions.make(function, int(variant))


def _taskset(name: str, rest: str, places: Places) -> Problem:
    data = _data_folder("taskset", places)
    from localhpo.bench.problems import tables

    paths = {path.stem: path for path in sorted((data / _FOLDERS["taskset"]).glob("*.npz"))}
    _known("table", name, rest, paths)
    return tables.taskset(paths[rest])


def _training(name: str, rest: str, places: Places) -> Problem:
    learner = name.partition("/")[0]
    _need_packages(learner)
    from localhpo.bench.problems import datasets, trainings

    _known("data set", name, rest, datasets.names())
    return trainings.make(learner, rest, places.trainings)


def _table(name: str, rest: str, places: Places) -> Problem:  # noqa: ARG001 - one shape for all
    from localhpo.bench.problems import tables

    return tables.own(Path(rest))


_OPENERS: Mapping[str, Callable[[str, str, Places], Problem]] = {
    "yahpo": _yahpo,
    "function": _function,
    "taskset": _taskset,
    "xgboost": _training,
    "mlp": _training,
    "table": _table,
}


def _known(what: str, name: str, given: str, known: Iterable[str]) -> None:
    if given not in list(known):
        raise _unknown(what, name, given, known)


def _unknown(what: str, name: str, given: str, known: Iterable[str]) -> InputError:
    listed = list(known)
    shown = ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
    return InputError(
        f"the {what} of problem {name!r} must be one of {shown}; got {given!r}",
        hint=did_you_mean(given, listed),
    )
