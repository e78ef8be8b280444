import pytest

from localhpo.analysis import wording
from localhpo.space import Float, Space


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3599.7, "1 h 00 min"), (7620, "2 h 07 min"),
        (360000, "100 h 00 min"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.98765432, "0.98765"),
        (-0.0, "-0"),
        (1234567.0, "1.2346e+06"),
        (1e-9, "1e-09"),
    ],
)
def test_scores(value, text):
    assert wording.score(value) == text


def test_memory_counts_and_percent():
    assert wording.memory(310.4) == "310 MB"
    assert wording.memory(12500) == "12.5 GB"
    assert wording.memory(None) == "-"
    assert wording.count(1, "trial") == "1 trial"
    assert wording.count(12345, "token") == "12,345 tokens"
    assert wording.percent(1 / 3) == "33 %"


def test_long_lists_of_numbers_are_cut():
    assert wording.numbers([1, 2]) == "1, 2"
    assert wording.numbers(list(range(10)), limit=3) == "0, 1, 2 and 7 more"


def test_values_are_spelled_canonically(small_space):
    config = {"learning_rate": 0.00031, "depth": 3, "gone": "x\x1b[2Jy"}
    texts = wording.values(small_space, config)
    assert texts == {"learning_rate": "3.1e-4", "depth": "3", "gone": "x[2Jy"}
    assert wording.assignments(texts) == "learning_rate=3.1e-4 depth=3 gone=x[2Jy"


def test_a_huge_or_tiny_value_does_not_fill_lines_with_digits():
    space = Space([Float("huge", 0.0, 1e300), Float("tiny", -1e-250, 1e-250), Float("x", 0.0, 1e9)])
    texts = wording.values(space, {"huge": 5e299, "tiny": -8.59e-251, "x": 123456000.0})
    assert texts == {"huge": "5e299", "tiny": "-8.59e-251", "x": "123456000"}


def test_a_value_that_the_space_does_not_know_is_shown_as_it_is(small_space):
    assert wording.values(small_space, {"depth": 99}) == {"depth": "99"}


@pytest.mark.parametrize(
    ("message", "tail", "said"),
    [
        ("exit code 1", "Traceback\nValueError: bad\n\n", "exit code 1: ValueError: bad"),
        ("exit code 1: ValueError: bad", "Traceback\nValueError: bad", None),
        ("timeout", "", None),
    ],
)
def test_a_failure_says_its_last_line_once(message, tail, said):
    assert wording.said(message, tail) == (said or message)


def test_escape_sequences_and_lines_do_not_get_through():
    assert wording.plain("a\x1b[31m\r\n b\t\u202ec\x00") == "a[31m b c"
    assert wording.plain_lines("one\x1b[0m  \ntwo\r50%\r100%") == "one[0m\ntwo\n50%\n100%"


@pytest.mark.parametrize(
    ("series", "width", "line"),
    [
        ([], 10, ""),
        ([1.0], 10, "▁"),
        ([2.0, 2.0], 10, "▁▁"),
        ([8, 7, 6, 5, 4, 3, 2, 1], 10, "█▇▆▅▄▃▂▁"),
        (list(range(100)), 5, "▁▃▅▆█"),
    ],
)
def test_sparklines(series, width, line):
    assert wording.sparkline(series, width) == line
