"""The lint of words: what it finds, and what it leaves alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "check_words.py"

Find = Callable[[str], Iterator[tuple[int, str, str]]]


@pytest.fixture(scope="module")
def find() -> Find:
    spec = importlib.util.spec_from_file_location("check_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Find = module.find_words
    return found


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("def take_up(self): ...", "take up"),
        ("self._take_up()", "take up"),
        ("writer = SpoolWriter(path)", "spool"),
        ("# the opinion of the model", "opinion"),
        ("THOUGHTS = 32", "thoughts"),
        ('raise Error("it was taught nothing")', "taught"),
        ("class Machine:", "Machine"),
        ('    """Of all random choices."""', '"""Of all'),
        ('origin = "engine:tpe"', '"engine:'),
        ("the optimiser starts at the centre", "optimiser"),
        ("license = licence", "licence"),
    ],
)
def test_words_that_go_are_found(find: Find, line: str, word: str) -> None:
    assert word in [found for _, found, _ in find(line)]


@pytest.mark.parametrize(
    "line",
    [
        "class ResourceBroker:",
        "the machine has 24 GB of memory",
        "kinds = list(kind)",
        "recall = metrics.recall_score(y, z)",
        '"""Return the best of all trials."""',
        "the optimizer starts at the center",
        "comprises exercise advise promise",
    ],
)
def test_words_of_the_field_are_left_alone(find: Find, line: str) -> None:
    assert list(find(line)) == []


def test_a_finding_names_its_line(find: Find) -> None:
    assert [number for number, _, _ in find("a = 1\nledger = 2\n")] == [2]
