"""Finds shipped data in a wheel, an editable install and a bare checkout.

The manual is inside the package. `prompts/` and `models/` stand beside it in a checkout, and are
copied to `_data/` in a wheel.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Return the folder of shipped data called `name` (`docs`, `prompts` or `models`).

    Raises:
        FileNotFoundError: this installation does not contain it.
    """
    if name == "docs":
        return _PACKAGE / name
    places = (_PACKAGE / "_data" / name, _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(str(place) for place in places)
    raise FileNotFoundError(f"this installation of localhpo lacks {name}/: looked in {looked}")
