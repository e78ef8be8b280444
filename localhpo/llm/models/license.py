"""Finds the license of a model folder in the front matter of its README or its license file."""

from __future__ import annotations

import re
from pathlib import Path

UNKNOWN = "unknown"

_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-nc-4.0": "CC-BY-NC-4.0"}
"""Hugging Face's name of a license -> its SPDX name, where they differ."""

_TEXTS = (
    (re.compile(r"Apache License\s+Version 2\.0"), "Apache-2.0"),
    (re.compile(r"MIT License|Permission is hereby granted, free of charge"), "MIT"),
    (re.compile(r"LLAMA ([\d.]+) COMMUNITY LICENSE"), r"llama\1"),
    (re.compile(r"Gemma Terms of Use", re.IGNORECASE), "gemma"),
)
"""Patterns that identify the text of a license."""

_KEY = re.compile(r"^(license|license_name):[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)

_MOST = 20_000
"""Number of characters read from a file: titles and front matter come first."""


def read_license(folder: Path) -> str:
    """Return the license of a model folder; `UNKNOWN` if it has none."""
    return _from_readme(folder) or _from_text(folder) or UNKNOWN


def _from_readme(folder: Path) -> str:
    head = re.match(r"---\s*\n(.*?)\n---", _head(folder / "README.md"), re.DOTALL)
    if head is None:
        return ""
    fields: dict[str, str] = dict(_KEY.findall(head[1]))
    license = fields.get("license", "")
    if license == "other":
        return fields.get("license_name", "")
    return _SPDX.get(license, license)


def _from_text(folder: Path) -> str:
    for path in sorted(folder.glob("*")):
        if path.stem.upper() in ("LICENSE", "LICENCE", "COPYING") and path.is_file():
            text = _head(path)
            for pattern, name in _TEXTS:
                if found := pattern.search(text):
                    return found.expand(name)
    return ""


def _head(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)
    except OSError:
        return ""
