"""Data sets that no model may be trained on, by the names under which others publish on them.

`localhpo/bench/splits.toml` holds OpenML ids, and what others published names its data sets. So
each id that is held out stands here with its names; a test compares the two files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES: Mapping[str, tuple[str, ...]] = {
    "12": ("mfeat-factors",),
    "15": ("breast-w", "breast-cancer-wisconsin"),
    "28": ("optdigits",),
    "32": ("pendigits",),
    "42": ("soybean",),
    "44": ("spambase",),
    "46": ("splice",),
    "61": ("iris",),
    "187": ("wine",),
    "334": ("monks-problems-2", "monks2"),
    "469": ("analcatdata_dmft",),
    "554": ("mnist_784", "mnist"),
    "1050": ("pc3",),
    "1063": ("kc2",),
    "1220": ("Click_prediction_small",),
    "1476": ("gas-drift",),
    "1489": ("phoneme",),
    "1493": ("one-hundred-plants-texture",),
    "1510": ("wdbc",),
    "40668": ("connect-4",),
    "40927": ("CIFAR_10",),
    "40966": ("MiceProtein",),
    "40996": ("Fashion-MNIST",),
    "41027": ("jungle_chess_2pcs_raw_endgame_complete", "jungle_chess"),
    "41142": ("christine",),
    "41156": ("ada",),
    "41159": ("guillermo",),
    "41161": ("riccardo",),
    "41278": ("okcupid-stem",),
}
"""OpenML data id -> its names."""

NAMELESS = frozenset({"41212"})
"""Held out, but OpenML's name is not known here. All names of the sources were looked through:
each of them is another data set."""

PARTS = ("california", "breast", "wine", "digits", "iris", "diabetes", "house", "housing")
"""Parts of names of what tests or peers use: data sets of scikit-learn, and prices of houses."""

_WORD = re.compile(r"[a-z]+|[0-9]+")
_SPELLED = frozenset("".join(_WORD.findall(n.lower())) for names in NAMES.values() for n in names)
_MOST_WORDS = max(len(_WORD.findall(n.lower())) for names in NAMES.values() for n in names)


def is_held_out(name: str) -> bool:
    """Return whether a data set may not be trained on, however its name is spelled.

    The name may be a part of `name`, as whole words: `classif-num-medium-0-phoneme`.
    """
    if any(part in name.lower() for part in PARTS):
        return True
    words = _WORD.findall(name.lower())
    return any(
        "".join(words[i:j]) in _SPELLED
        for i in range(len(words))
        for j in range(i + 1, min(i + _MOST_WORDS, len(words)) + 1)
    )
