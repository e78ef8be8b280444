"""Copies the files of a folder between two machines, in parts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a folder."""

    name: str
    """Path below the folder."""
    size: int
    """In bytes; 0 for a link."""
    mode: int = 0o644
    link: str | None = None
    """What it points to, of a symbolic link."""


def list_entries(folder: Path) -> list[FileEntry]:
    """Return the files and symbolic links below a folder; pipes, sockets and the like stay."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found.append(FileEntry(name, 0, link=os.readlink(path)))  # noqa: PTH115 - text
        elif path.is_file():
            stat = path.stat()
            found.append(FileEntry(name, stat.st_size, stat.st_mode & 0o777))
    return found


def read_part(folder: Path, name: str, offset: int, count: int) -> bytes:
    """Return a part of a file; nothing where there is none."""
    try:
        with (folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(count)
    except FileNotFoundError:
        return b""


def write_part(folder: Path, entry: FileEntry, offset: int, data: bytes) -> None:
    """Write a part of a file, whose earlier parts are there; a link as a whole."""
    path = folder / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.link is not None:
        path.unlink(missing_ok=True)
        path.symlink_to(entry.link)
        return
    if path.is_symlink():
        path.unlink()
    with path.open("r+b" if path.exists() and offset else "wb") as file:
        file.seek(offset)
        file.write(data)
    path.chmod(entry.mode | 0o200)
