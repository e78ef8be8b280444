"""Under which license a model folder comes: from its README's front matter, or its license file."""

from __future__ import annotations

import re
from pathlib import Path

UNKNOWN = "unknown"

_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-nc-4.0": "CC-BY-NC-4.0"}
"""Hugging Face's names of licenses that SPDX spells otherwise; the rest is kept as it is."""

_TEXTS = (
    (re.compile(r"Apache License\s+Version 2\.0"), "Apache-2.0"),
    (re.compile(r"MIT License|Permission is hereby granted, free of charge"), "MIT"),
    (re.compile(r"LLAMA ([\d.]+) COMMUNITY LICENSE"), r"llama\1"),
    (re.compile(r"Gemma Terms of Use", re.IGNORECASE), "gemma"),
)
"""What a license's text is known by."""

_KEY = re.compile(r"^(license|license_name):[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)

_MOST = 20_000
"""Characters that are read of a file: titles and front matters stand at its head."""


def read_license(folder: Path) -> str:
    """Return the license of a model folder; `UNKNOWN` where it does not say."""
    return _from_readme(folder) or _from_text(folder) or UNKNOWN


def _from_readme(folder: Path) -> str:
    head = re.match(r"---\s*\n(.*?)\n---", _head(folder / "README.md"), re.DOTALL)
    if head is None:
        return ""
    said: dict[str, str] = dict(_KEY.findall(head[1]))
    license = said.get("license", "")
    if license == "other":
        return said.get("license_name", "")
    return _SPDX.get(license, license)


def _from_text(folder: Path) -> str:
    for path in sorted(folder.glob("*")):
        if path.stem.upper() in ("LICENSE", "LICENSE", "COPYING") and path.is_file():
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
