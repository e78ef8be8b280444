from __future__ import annotations

import json
from pathlib import Path

import pytest

from localhpo.errors import StoreError, StoreVersionError
from localhpo.store import StudyRecord, spool
from localhpo.store.spool import SpoolWriter

RECORD = StudyRecord("a/b", "a", {"x": 1}, 1.5, "0.1.0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spool.jsonl"
    spool.create(path, RECORD)
    return path


def bodies(path: Path, start: int = 0, end: int | None = None) -> list[object]:
    return [body for (kind, body), _ in spool.read_lines(path, start, end) if kind != "study"]


def test_lines_come_back_in_order_from_any_offset_that_was_given(path: Path) -> None:
    writer = SpoolWriter(path)
    ends = [writer.end]
    for i in range(5):
        assert writer.append("event", {"i": i}) == ("event", {"i": i})
        ends.append(writer.end)
    writer.close()
    writer.close()
    assert [end for _, end in spool.read_lines(path)] == ends
    for i, end in enumerate(ends):
        assert bodies(path, start=end) == [{"i": k} for k in range(i, 5)]
        assert bodies(path, end=end) == [{"i": k} for k in range(i)]


def test_each_spool_has_an_id_of_its_own(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        spool.create(tmp_path / "s", RECORD)
        header = spool.read_header(tmp_path / "s")
        assert header.record == RECORD
        ids.add(header.spool_id)
    assert len(ids) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["s"]  # no draft is left


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_torn_last_line_is_dropped_and_cut_off_wherever_it_broke(path: Path, cut: int) -> None:
    writer = SpoolWriter(path)
    writer.append("event", {"i": 0})
    writer.append("event", {"i": 1})
    writer.close()
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    assert bodies(path) == [{"i": 0}]
    writer = SpoolWriter(path)
    writer.append("event", {"i": 2})
    writer.close()
    assert bodies(path) == [{"i": 0}, {"i": 2}]


def test_zeros_after_a_power_cut_are_dropped(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    assert bodies(path) == []
    writer = SpoolWriter(path)
    assert writer.end == size == path.stat().st_size
    writer.close()


def test_damage_in_the_middle_is_an_error_that_says_where(path: Path) -> None:
    at = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"event": {"i"\n{"event": {"i": 1}}\n')
    with pytest.raises(StoreError, match=f"spool.jsonl is damaged at byte {at}"):
        bodies(path)


@pytest.mark.parametrize(
    "line", [b"[1]\n", b"{}\n", b'{"trial": {}}\n', b"", b'{"study": {}', b'{"study": {}}\n']
)
def test_a_file_that_is_no_spool_is_an_error(path: Path, line: bytes) -> None:
    path.write_bytes(line)
    with pytest.raises(StoreError, match="damaged at byte 0"):
        spool.read_header(path)


def test_a_newer_format_is_refused_by_both_versions(path: Path) -> None:
    head = json.loads(path.read_text())
    head["study"].update(format=spool.FORMAT + 1, version="9.9.9", added="unknown")
    path.write_text(json.dumps(head) + "\n")
    with pytest.raises(StoreVersionError, match=r"format 2.*LocalHPO 9\.9\.9.*up to 1"):
        spool.read_header(path)


def test_appending_after_the_file_was_taken_away_is_an_error(path: Path) -> None:
    path.unlink()
    with pytest.raises(StoreError, match="cannot append to"):
        SpoolWriter(path)
    with pytest.raises(FileNotFoundError):
        spool.read_header(path)
