"""What earlier versions did still holds: proposals for fixed seeds, and the output of `--json`.

The proposals of `hybrid` are of version 0.2.0, all else is of commit 1fa3516.
`tests/golden/record.py` and `record_json.py` made the files that are compared with here.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"
LIBRARIES = ("numpy", "optuna", "cmaes")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{name}", GOLDEN / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


record = _module("record")
record_json = _module("record_json")
PROPOSALS = json.loads((GOLDEN / "proposals.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "creator",
    [name if name in record.EXACT else pytest.param(name, marks=pytest.mark.slow)
     for name in record.CREATORS],
)  # fmt: skip
def test_proposals_are_those_of_version_0_1_0(creator: str) -> None:
    if creator not in record.EXACT:
        pytest.importorskip("llguidance")
    stored, here = PROPOSALS["machine"], record.machine()
    names = LIBRARIES if creator in record.EXACT else tuple(stored)
    others = [f"{name} {here[name]}, not {stored[name]}" for name in names
              if here[name] != stored[name]]  # fmt: skip
    if others:
        pytest.skip(f"the proposals were recorded with other floats: {'; '.join(others)}")
    cases = {f"{creator} on {space}" for space in record.CREATORS[creator][1]}
    expected = {case: rows for case, rows in PROPOSALS["proposals"].items() if case in cases}

    assert record.differences(expected, record.proposals([creator])) == []
    assert expected.keys() == cases


def test_another_configuration_or_origin_is_a_difference() -> None:
    was = {"case": [["bo", "{}"], ["bo", '{"x": 1}']]}
    assert record.differences(was, {"case": [["bo", "{}"], ["bo", '{"x": 2}']]})
    assert record.differences(was, {"case": [["bo+llm", "{}"], ["bo", '{"x": 1}']]})
    assert record.differences(was, {"case": was["case"][:1]})
    assert record.differences(was, {})
    assert record.differences(was, was) == []


def test_meta_data_and_past_studies_had_one_origin() -> None:
    was = {"case": [["transfer", "{}"], ["bo+transfer", "{}"]]}
    assert record.differences(was, {"case": [["meta", "{}"], ["bo+meta", "{}"]]}) == []
    assert record.differences(was, {"case": [["meta", "{}"], ["bo+meta+transfer", "{}"]]}) == []
    assert record.differences(was, {"case": [["llm", "{}"], ["bo+meta", "{}"]]})


def test_every_old_origin_is_read_as_the_golden_files_spell_it() -> None:
    from localhpo.trial import Origin

    for old, new in record.ORIGINS["renamed"].items():
        assert str(Origin.parse(old)) == new


@pytest.mark.slow
def test_json_output_has_the_keys_and_values_of_version_0_1_0(tmp_path: Path) -> None:
    expected = json.loads((GOLDEN / "json_output.json").read_text(encoding="utf-8"))
    assert _missing(expected, record_json.outputs(tmp_path), "output") == []


def test_a_missing_key_and_a_changed_value_are_found() -> None:
    was = {"score": 0.5, "origin": "engine:tpe", "trials": [{"number": 0}]}
    now = {"score": 0.5, "value": 0.5, "origin": "tpe", "trials": [{"number": 0, "value": 1}]}
    assert _missing(was, now, "x") == []
    assert _missing(was, {**now, "score": 0.4}, "x") == ["x.score: was 0.5, is 0.4"]
    assert _missing(was, {"score": 0.5, "trials": []}, "x") == [
        "x.origin: is missing",
        "x.trials: had 1 items, has 0",
    ]


def _missing(was: Any, now: Any, where: str) -> list[str]:
    """Return which keys and values of the old output the new one lacks; more may stand beside."""
    if was == record_json.ANY:
        return [f"{where}: was given, is {now!r}"] if now is None else []
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            problem
            for key, value in was.items()
            for problem in (
                _missing(_today(key, value), now[key], f"{where}.{key}")
                if key in now
                else [f"{where}.{key}: is missing"]
            )
        ]
    if isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            return [f"{where}: had {len(was)} items, has {len(now)}"]
        pairs = enumerate(zip(was, now, strict=True))
        return [p for i, (old, new) in pairs for p in _missing(old, new, f"{where}[{i}]")]
    return [] if was == now else [f"{where}: was {was!r}, is {now!r}"]


def _today(key: str, value: Any) -> Any:
    """Return an old value as it is spelled today."""
    return record.ORIGINS["renamed"].get(value, value) if key == "origin" else value
