"""`localhpo.executor.tail`: reading what a trial reports while it writes."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhpo.errors import TaskError
from localhpo.executor.tail import (
    CHUNK_BYTES,
    LINE_BYTES,
    THINNED_AFTER,
    MeasurementReader,
    compile_pattern,
    last_lines,
    number_at,
    parse_line,
    parse_stdout,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_each_line_is_read_once_when_complete(path: Path) -> None:
    reader = MeasurementReader(path, parse_line)
    assert reader.read() == []
    append(path, b'{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert [(m.step, m.value) for m in reader.read()] == [(1, 0.5)]
    assert reader.read() == []
    append(path, b'ss": 0.25}')
    assert reader.read() == []
    append(path, b"\n")
    assert [(m.step, m.value) for m in reader.read()] == [(2, 0.25)]
    assert reader.finish() == []
    assert reader.skipped == 0


def test_a_flood_is_thinned_out_and_its_newest_values_are_kept(path: Path) -> None:
    reader = MeasurementReader(path, parse_line)
    line = b'{"step": 1, "loss": 0.5}\n'
    append(path, line * (THINNED_AFTER + 1))
    found = 0
    while not reader.thinned:
        found += len(reader.read())
    assert found == THINNED_AFTER + 1
    append(path, line * (CHUNK_BYTES // 4) + b'{"step": 2, "f1": 1, "loss": 2}\n{"loss": 3}\n')
    assert [(m.name, m.value) for m in reader.read()] == [("loss", 3.0), ("f1", 1.0)]
    assert reader.read() == []
    assert reader.at_end
    assert reader.skipped == 0


def test_complete_last_line_without_line_break_counts(path: Path) -> None:
    reader = MeasurementReader(path, parse_line)
    append(path, b'{"loss": 0.5}')
    assert reader.read() == []
    assert [m.value for m in reader.finish()] == [0.5]
    assert reader.finish() == []


def test_a_last_line_that_is_torn_is_counted(path: Path) -> None:
    reader = MeasurementReader(path, parse_line)
    append(path, b'{"loss": 0.5}\n{"loss": 0.')
    reader.read()
    assert reader.finish() == []
    assert reader.skipped == 1


@given(cuts=st.lists(st.integers(1, 60), max_size=30))
def test_however_it_is_cut_the_same_is_read(
    cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    text = b"".join(b'{"step": %d, "loss": %d, "name": "\xc3\xa9"}\n' % (i, i) for i in range(20))
    reader, found, start = MeasurementReader(path, parse_line), [], 0
    for cut in [*cuts, len(text)]:
        append(path, text[start : start + cut])
        start += cut
        found += reader.read()
    assert [m.step for m in found] == list(range(20))
    assert reader.skipped == 0


def test_a_million_lines_are_read_in_bounded_parts(path: Path) -> None:
    line = b'{"step": 1, "loss": 0.5}\n'
    path.write_bytes(line * 50_000)
    reader, parts = MeasurementReader(path, parse_line), []
    parts.append(len(reader.read()))
    assert not reader.at_end
    while not reader.at_end:
        parts.append(len(reader.read()))
    assert sum(parts) == 50_000
    assert max(parts) <= CHUNK_BYTES / len(line) + 1


def test_a_line_without_end_does_not_fill_the_memory(path: Path) -> None:
    reader = MeasurementReader(path, parse_line)
    for _ in range(20):
        append(path, b"x" * LINE_BYTES)
        assert reader.read() == []
    append(path, b'x\n{"loss": 0.5}\n')
    assert [m.value for m in reader.read()] == [0.5]
    assert reader.skipped == 1
    append(path, b"x" * 2 * LINE_BYTES)
    assert [*reader.read(), *reader.finish()] == []
    assert reader.skipped == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"step": 3, "f1": 0.7, "loss": 1}', [(3, "f1", 0.7), (3, "loss", 1.0)]),
        ('{"f1": 0.7}', [(9, "f1", 0.7)]),
        ('{"step": 3.0, "f1": 1e-05, "time": 5}', [(3, "f1", 1e-05)]),
        ('{"step": -1, "f1": -3}', [(-1, "f1", -3.0)]),
        ('{"step": 1, "f1": Infinity}', [(1, "f1", math.inf)]),
        ('{"step": 1, "f1": -Infinity}', [(1, "f1", -math.inf)]),
        ('{"step": 1, "f1": 0.7, "note": "ok", "done": true, "x": null, "l": [1]}',
         [(1, "f1", 0.7)]),
        ('{"step": 1, "val/f1": 0.7}', [(1, "val/f1", 0.7)]),
        ("", []),
        ("  ", []),
    ],
)  # fmt: skip
def test_lines_that_count(line: str, expected: list[tuple[int, str, float]]) -> None:
    found = parse_line(line.encode(), 9)
    assert found is not None
    assert [(m.step, m.name, m.value) for m in found] == expected


def test_nan_is_a_value() -> None:
    (found,) = parse_line(b'{"step": 1, "f1": NaN, "time": 12.5}', 9) or []
    assert math.isnan(found.value)
    assert found.time == 12.5


@pytest.mark.parametrize(
    "line",
    [
        b"loss: 0.5",
        b"[1, 2]",
        b"0.5",
        b'"loss"',
        b'{"loss": 0.5',
        b'{"loss": "0.5"}',
        b"{}",
        b'{"step": 1}',
        b'{"step": "one", "loss": 1}',
        b'{"step": 1.5, "loss": 1}',
        b'{"step": NaN, "loss": 1}',
        b'{"step": 1e300, "loss": 1}',
        b'{"step": true, "loss": 1}',
        b'{"step": 1, "loss": 1' + b"0" * 400 + b"}",
        b'{"step": 1, "loss": 1' + b"0" * 9000 + b"}",
        b'{"a":' * 5000,
        b"\xff\xfe\x00garbage",
        b"\x00" * 50,
    ],
)
def test_garbage_is_counted_and_harms_nothing(path: Path, line: bytes) -> None:
    reader = MeasurementReader(path, parse_line)
    append(path, line + b'\n{"loss": 0.5}\n')
    found = reader.read()
    assert [(m.step, m.value) for m in found] == [(1, 0.5)]
    assert reader.skipped == 1


@pytest.mark.parametrize("time", ["NaN", "Infinity", '"now"', "null"])
def test_a_time_that_is_none_is_now(time: str) -> None:
    (found,) = parse_line(f'{{"loss": 1, "time": {time}}}'.encode(), 1) or []
    assert found.time > 1.7e9


# Standard output


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"loss: (\S+)", "loss: 0.5", [0.5]),
        (r"loss: ([0-9.]+)", "loss: 1e-05", [1e-05]),
        (r"loss: ([0-9.]+)", "loss: 2.5E+3,", [2500.0]),
        (r"loss: -?([0-9.]+)", "loss: -3", [-3.0]),
        (r"loss.*?([0-9.]+)", "loss -0.25", [-0.25]),
        (r"loss=(.+)", "loss=-inf (bad)", [-math.inf]),
        (r"loss=(.+)", "loss=  Infinity", [math.inf]),
        (r"a-(\d+)", "a-3", [3.0]),
        (r"loss: (\S+)", "loss: .5", [0.5]),
        (r"loss: (\S+)", "loss: 5.", [5.0]),
        (r"loss: (\S+)", "loss: 0.5%", [0.5]),
        (r"loss: (\S+)", "accuracy: 0.5", []),
        (r"loss: (\S+)", "1%\rloss: 0.5\rloss: 0.4\r", [0.5, 0.4]),
        (r"(?:val_)?loss: (\S+)", "val_loss: 7", [7.0]),
        (r"loss: (\d+)?", "loss: ", []),
    ],
)
def test_numbers_on_standard_output(pattern: str, text: str, expected: list[float]) -> None:
    found = parse_stdout(compile_pattern(pattern), "loss", text.encode(), 4)
    assert found is not None
    assert [m.value for m in found] == expected
    assert [m.step for m in found] == list(range(4, 4 + len(expected)))


def test_nan_on_standard_output_is_nan() -> None:
    assert math.isnan(number_at("loss nan", 5) or 0.0)
    assert math.isnan(number_at("loss -NaN.", 6) or 0.0)


@pytest.mark.parametrize("text", ["high", "nano", "infinite", "-", "e5", ""])
def test_non_numeric_text_is_none(text: str) -> None:
    assert number_at(text, 0) is None


def test_matches_without_a_number_are_counted(path: Path) -> None:
    reader = MeasurementReader(path, partial(parse_stdout, compile_pattern(r"loss: (\w+)"), "loss"))
    append(path, b"loss: high\nnothing\nloss: 3\n")
    assert [(m.step, m.value) for m in reader.read()] == [(1, 3.0)]
    assert reader.skipped == 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("loss: (", "is no regular expression"),
        ("loss: .*", "must have one group, the number; it has 0"),
        ("(loss): (.*)", "it has 2"),
    ],
)
def test_a_pattern_is_checked_before_any_trial(pattern: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        compile_pattern(pattern)


# The end of an output


def test_the_last_lines_are_plain_text(path: Path) -> None:
    path.write_bytes(
        b"".join(b"line %d\n" % i for i in range(100))
        + b"\n\x1b[1;31mbold\x1b[0m\tx\x07\n  1%\r 50%\r100%\r\n\xff\xfe\n"
    )
    assert last_lines(path, 5) == "line 98\nline 99\nbold\tx\n100%\n\ufffd\ufffd"


def test_the_last_lines_of_nothing_and_of_one_endless_line(path: Path) -> None:
    assert last_lines(path) == ""
    path.write_bytes(b"x" * 3 * LINE_BYTES)
    assert last_lines(path) == "x" * 400 + "..."


def test_reports_of_the_reporter_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from localhpo.reporter import report

    monkeypatch.setenv("LOCALHPO_METRICS", str(path))
    report(step=1, loss=math.nan, f1=math.inf)
    report(loss=1e-300)
    found = MeasurementReader(path, parse_line).read()
    assert [(m.step, m.name) for m in found] == [(1, "loss"), (1, "f1"), (2, "loss")]
    assert json.loads(path.read_text().splitlines()[1])["loss"] == found[2].value == 1e-300
