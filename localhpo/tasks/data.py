"""For the training script of a ready task: where its data are, and how a file is opened.

    folder = data.find(__file__, arguments.data)
    with data.open_text(folder, "water_potability.csv") as file:
        ...

What a script reads is said once, in the `[data]` table of the task.toml beside it.
"""

from __future__ import annotations

import gzip
import io
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from localhpo import data
from localhpo.errors import LocalHPOError


def find(script: str, given: str | None = None, *, instead: str | None = None) -> Path:
    """Return the folder with the data of a script, or end it with what is missing.

    Args:
        script: its `__file__`.
        given: what the user said with `--data`; None leaves it to LOCALHPO_DATA.
        instead: name of the data to read in place of the usual ones, where the table has others.
    """
    try:
        wanted = _wanted(script)
        return data.find_data(wanted.instead[instead] if instead else wanted, given)
    except LocalHPOError as error:
        sys.exit(f"Error: {error}\nHint: {error.hint}")


@contextmanager
def uncompressed(script: str, given: str | None = None) -> Iterator[Path]:
    """Give the folder with the data of a script to a library that opens the files itself.

    Where some are compressed it is a temporary one that holds them all as they were. Arguments
    and errors are those of `find`.
    """
    folder, names = find(script, given), _wanted(script).files
    if all((folder / name).exists() for name in names):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            with open_binary(folder, name) as source, Path(place, name).open("wb") as target:
                shutil.copyfileobj(source, target)
        yield Path(place)


def find_weights(script: str, given: str | None = None) -> Path:
    """Return the folder of the pre-trained model of a script, or end it with what is missing."""
    try:
        weights = _wanted(script).weights
        assert weights is not None, "the task.toml has no [data.weights]"
        return data.find_data(weights, given)
    except LocalHPOError as error:
        sys.exit(f"Error: {error}\nHint: {error.hint}")


def path_of(folder: Path, name: str) -> Path:
    """Return the path of a file (`x.csv` or `x.csv.gz`) or a folder (`train`, `train.tar.gz`).

    Raises:
        FileNotFoundError: there is none.
    """
    path = data.file_in(folder, name)
    if path is None:
        raise FileNotFoundError(folder / name)
    return path


def open_binary(folder: Path, name: str) -> IO[bytes]:
    """Open a file that may be compressed."""
    path = path_of(folder, name)
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def open_text(folder: Path, name: str, encoding: str = "utf-8") -> TextIO:
    """Open a file of text that may be compressed."""
    return io.TextIOWrapper(open_binary(folder, name), encoding=encoding, newline="")


def _wanted(script: str) -> data.Data:
    path = Path(script).with_name("task.toml")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    wanted = data.parse_data(table.get("data", {}), f"{path} [data]")
    assert wanted is not None, f"{path} has no [data]"
    return wanted
