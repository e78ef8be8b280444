"""Makes `splits.toml`, which says what a shipped model may be trained on, and what only tests it.

A data set is on the same side in every family. The file was written once, from `render`, and must
not be written again: training and test data of existing models would be mixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from scripts.benchmarks.problems import yahpo

UNSEEN = ("rbv2_svm",)
"""Families kept for tests as a whole."""

UNUSED = ("rbv2_super", "nb301", "iaml_super")
"""Families that are neither trained on nor tested on: the first has the parameters of the unseen
family, the second is a single data set, the third nests its conditions."""

NEVER_TRAIN = ("15", "1510", "28", "61", "187", "40927", "40996")
"""Data sets that tests or other projects use (OpenML data ids): both breast cancer sets of
Wisconsin, digits, iris, wine, CIFAR-10 and Fashion-MNIST."""

DATA_SET_OF_TASK: Mapping[str, str] = {
    "3945": "1111", "7593": "1596", "34539": "4135", "126025": "1590", "126026": "1486",
    "126029": "1461", "146212": "40685", "167104": "40981", "167149": "3", "167152": "12",
    "167161": "31", "167168": "54", "167181": "1067", "167184": "1464", "167185": "1468",
    "167190": "1489", "167200": "23512", "167201": "40668", "168329": "41169",
    "168330": "41168", "168331": "41166", "168335": "41150", "168868": "41138",
    "168908": "41142", "168910": "41164", "189354": "1169", "189862": "41143",
    "189865": "41146", "189866": "41147", "189873": "41167", "189905": "40975",
    "189906": "40984", "189908": "40996", "189909": "41027",
    "14965": "1461", "31": "31", "190424": "190424", "317599": "317599",
}  # fmt: skip
"""OpenML task id (lcbench, fair_ranger) -> data id, so that a data set is on one side."""

_TASK_IDS = frozenset({"lcbench", "fair_ranger"})


LEARNING = ("rbv2_ranger", "rbv2_aknn", "rbv2_glmnet")
"""Families that a base model learns from a user's history: it is built without them."""

OF_THE_SAME_KIND = ("fair_ranger", "iaml_ranger", "iaml_glmnet")
"""Other tables of the same learners, which that base model does not see either."""

_LEARNING_TASKS = 8
"""Data sets of a family in the history, and as many others to test on."""


def data_set_id(family: str, instance: str) -> str:
    """Return the OpenML data id of an instance."""
    return DATA_SET_OF_TASK[instance] if family in _TASK_IDS else instance


def is_held_out(name: str) -> bool:
    """Return whether a data set is only for tests: about a quarter of them, by a stable hash."""
    return name in NEVER_TRAIN or hashlib.sha256(f"split-1:{name}".encode()).digest()[0] < 64


def is_for_settings(name: str) -> bool:
    """Return whether a held-out data set is for choosing settings; the rest are for final tables.

    About a third, by a second stable hash; none that tests or other projects use.
    """
    first = hashlib.sha256(f"bench-1:{name}".encode()).digest()[0]
    return name not in NEVER_TRAIN and first < 96


def render(data: Path) -> str:
    """Return the text of the file."""
    lines = [
        "# What a shipped model may be trained on, and what only tests it. Fixed: written once by",
        "# splits.py. A data set is on the same side in every family.",
        "",
        "[yahpo]",
        f"unseen_families = {json.dumps(UNSEEN)}    # never trained on, as a whole",
        f"unused_families = {json.dumps(UNUSED)}",
        "",
    ]
    for family, scenario in yahpo.open_all(data).items():
        if family in UNSEEN or family in UNUSED:
            continue
        sides: dict[bool, list[str]] = {False: [], True: []}
        for instance in sorted(scenario.instances, key=int):
            sides[is_held_out(data_set_id(family, instance))].append(instance)
        lines += [f"[yahpo.families.{family}]", f"train = {json.dumps(sides[False])}"]
        lines += [f"held_out = {json.dumps(sides[True])}", ""]
    tasks = sorted(path.stem for path in (data / "taskset_adam8p").glob("*.npz"))
    lines += ["[taskset]", f"train = {json.dumps([t for i, t in enumerate(tasks) if i % 4 != 1])}"]
    lines += [f"held_out = {json.dumps([t for i, t in enumerate(tasks) if i % 4 == 1])}"]
    tables = sorted(path.name.removesuffix(".csv.gz") for path in (data / "tables").glob("*.gz"))
    lines += [
        "",
        "[tables]    # FCNet and NAS-Bench-201: never trained on, as a whole, and in no meta-data",
        "train = []",
        f"held_out = {json.dumps(tables)}",
    ]
    return "\n".join(lines) + "\n" + _render_bench(data) + _render_learning(data)


def _render_bench(data: Path) -> str:
    """Return the table that divides the held-out data sets between the suites."""
    families = yahpo.open_all(data).items()
    known = {
        data_set_id(family, instance)
        for family, scenario in families
        if family not in UNSEEN and family not in UNUSED
        for instance in scenario.instances
    }
    held_out = sorted(filter(is_held_out, known), key=int)
    settings = [name for name in held_out if is_for_settings(name)]
    final = [name for name in held_out if not is_for_settings(name)]
    lines = [
        "",
        "[bench]    # OpenML data ids of all that is held out: no suite mixes the two",
        f"settings_data_sets = {json.dumps(settings)}",
        f"final_data_sets = {json.dumps(final)}",
    ]
    return "\n".join(lines) + "\n"


def _render_learning(data: Path) -> str:
    """Return the table of data sets in a user's history, and of those to test on afterwards.

    Both are spread evenly over their side; none of the latter is for choosing settings.
    """
    families = yahpo.open_all(data)
    left_out = [*LEARNING, *OF_THE_SAME_KIND]
    lines = [
        "",
        "[learning]    # a base that never saw these families, and a history of them",
        f"base_without = {json.dumps(left_out)}",
        "",
        "[learning.history]",
        *(
            f"{f} = {json.dumps(_spread_evenly(_select_side(families[f], f, False)))}"
            for f in LEARNING
        ),
        "",
        "[learning.tried]    # the last family has no history: nothing may be lost there",
    ]
    for family in (*LEARNING, *UNSEEN):
        final = [
            instance
            for instance in _select_side(families[family], family, True)
            if not is_for_settings(data_set_id(family, instance))
        ]
        lines.append(f"{family} = {json.dumps(_spread_evenly(final))}")
    return "\n".join(lines) + "\n"


def _select_side(scenario: yahpo.Scenario, family: str, held_out: bool) -> list[str]:
    instances = sorted(scenario.instances, key=int)
    return [i for i in instances if is_held_out(data_set_id(family, i)) is held_out]


def _spread_evenly(instances: list[str]) -> list[str]:
    return [instances[i * len(instances) // _LEARNING_TASKS] for i in range(_LEARNING_TASKS)]
