"""The data that a task reads: its files, their source, and their folder on this machine.

    [data]
    folder = "water_potability"     # or a list: each name that the folder may have
    source = "https://www.kaggle.com/datasets/adityakadiwal/water-potability"
    license = "CC0 1.0"
    files = { "water_potability.csv" = "3,276 rows" }

`[data.weights]` has the same keys, for a model that the script starts from, and so has each
`[data.instead.NAME]`, for other data that the script reads where its command holds NAME.

The user names a folder DIR, which contains the files, or a folder for each data set. A file may
be compressed (`x.csv.gz` for `x.csv`), a folder packed (`train.tar.gz` for `train`). Nothing is
ever downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localhpo.errors import DataError, TaskError
from localhpo.tables import refuse_unknown, table_of, value_of

VARIABLE = "LOCALHPO_DATA"
"""The environment variable that names DIR."""

_PART_KEYS = ("folder", "files", "source", "license")
KEYS = (*_PART_KEYS, "weights", "instead")
"""Keys of `[data]`."""

_SUFFIXES = ("", ".gz", ".tar.gz")


@dataclass(frozen=True, slots=True)
class Data:
    """One data set, or the files of one pre-trained model."""

    folder: tuple[str, ...]
    """Names that its folder may have; the first one is the publisher's."""
    files: Mapping[str, str]
    """File or folder, relative to that folder -> what it is, in a few words."""
    source: str
    """Web page from which the user can download it."""
    license: str
    weights: Data | None = None
    """The pre-trained model that the script starts from."""
    instead: Mapping[str, Data] = field(default_factory=dict)
    """Argument of the command -> other data that the script reads with it."""

    def chosen(self, command: Sequence[str]) -> Data:
        """Return the data that a command reads: these, or those of `instead` for its argument."""
        return next((data for name, data in self.instead.items() if name in command), self)

    def wanted(self, command: Sequence[str]) -> tuple[Data, ...]:
        """Return all that a command reads; a `--small` training begins with random weights."""
        chosen = self.chosen(command)
        if self.weights is None or "--small" in command:
            return (chosen,)
        return chosen, self.weights

    def to_table(self) -> dict[str, Any]:
        """Return the JSON-able table from which `parse_data` makes the same data again."""
        table: dict[str, Any] = {
            "folder": list(self.folder),
            "files": dict(self.files),
            "source": self.source,
            "license": self.license,
        }
        if self.weights is not None:
            table["weights"] = self.weights.to_table()
        if self.instead:
            table["instead"] = {name: data.to_table() for name, data in self.instead.items()}
        return table


def parse_data(table: Mapping[str, Any], where: str) -> Data | None:
    """Return the data that a `[data]` table describes; None for an empty one.

    Raises:
        TaskError: a key is missing, unknown, or of the wrong kind.
    """
    if not table:
        return None
    refuse_unknown(table, KEYS, where)
    weights = table_of(table, "weights", where)
    refuse_unknown(weights, _PART_KEYS, f"{where} weights")
    return Data(
        folder=_names(table.get("folder"), f"{where} folder"),
        files={
            name: value_of(what, str, f"{where} files {name}")
            for name, what in table_of(table, "files", where, required=True).items()
        },
        source=_text(table.get("source"), f"{where} source"),
        license=_text(table.get("license"), f"{where} license"),
        weights=parse_data(weights, f"{where} weights"),
        instead=dict(_others(table_of(table, "instead", where), f"{where} instead")),
    )


def find_data(data: Data, given: Path | str | None) -> Path:
    """Return the folder on this machine that contains the files.

    Args:
        data: the data.
        given: DIR of the module's docstring; None for LOCALHPO_DATA.

    Raises:
        DataError: files are missing; names them and their source.
    """
    given = given or os.environ.get(VARIABLE) or None
    looked = [Path(given, name) for name in (".", *data.folder)] if given else []
    for folder in looked:
        if not _missing(data, folder):
            return folder.absolute()
    raise DataError(
        _what_is_wanted(data, looked),
        hint=f"put them into DIR/{data.folder[0]}, then give --data DIR or set {VARIABLE}=DIR",
    )


def file_in(folder: Path, name: str) -> Path | None:
    """Return the path of a file that may be compressed, or a folder that may be packed."""
    paths = (folder / f"{name}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def _missing(data: Data, folder: Path) -> list[str]:
    return [name for name in data.files if file_in(folder, name) is None]


def _what_is_wanted(data: Data, looked: list[Path]) -> str:
    """Return the message: the missing files, the folder searched, and the source."""
    # The folder with the fewest missing files is probably the one that the user means.
    folder = min(looked, key=lambda path: len(_missing(data, path)), default=None)
    missing = list(data.files) if folder is None else _missing(data, folder)
    lines = ["the data of this task must be on this machine"]
    lines += [f"  wanted:  {name} ({data.files[name]})" for name in missing]
    lines += [f"  missing: in {folder.absolute()}"] if folder is not None else []
    lines += [f"  source:  {data.source}", f"  license: {data.license}"]
    return "\n".join(lines)


def _others(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Data]]:
    for name in table:
        one = table_of(table, name, where, required=True)
        refuse_unknown(one, _PART_KEYS, f"{where} {name}")
        if (data := parse_data(one, f"{where} {name}")) is not None:
            yield name, data


def _names(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        names: tuple[str, ...] = value_of(value, tuple[str, ...], where)
    else:
        names = (_text(value, where),)
    if not names:
        raise TaskError(f"{where}: must name at least one folder")
    return names


def _text(value: Any, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise TaskError(f"{where}: must be given, as a string that is not empty; got {value!r}")
