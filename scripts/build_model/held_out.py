"""Names of the data sets that no model may be trained on.

`problems/splits.toml` of the benchmarks has OpenML ids, but published results have names. So this
table has the names of each held-out id; a test compares the two files.
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
"""Held-out ids whose name is not known. All names in the sources were checked: none is of these
data sets."""

PARTS = ("california", "breast", "wine", "digits", "iris", "diabetes", "house", "housing")
"""Parts of names of data sets that tests or other projects use: those of scikit-learn, and of
house prices."""

_WORD = re.compile(r"[a-z]+|[0-9]+")
_SPELLED = frozenset("".join(_WORD.findall(n.lower())) for names in NAMES.values() for n in names)
_MOST_WORDS = max(len(_WORD.findall(n.lower())) for names in NAMES.values() for n in names)


def is_held_out(name: str) -> bool:
    """Return whether a data set is held out, whatever the spelling of its name.

    `name` may have more words: `classif-num-medium-0-phoneme`.
    """
    if any(part in name.lower() for part in PARTS):
        return True
    words = _WORD.findall(name.lower())
    return any(
        "".join(words[i:j]) in _SPELLED
        for i in range(len(words))
        for j in range(i + 1, min(i + _MOST_WORDS, len(words)) + 1)
    )
