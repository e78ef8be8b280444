from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localhpo.errors import StoreError, StoreVersionError
from localhpo.store import StudyRecord, journal
from localhpo.store.journal import JournalWriter

RECORD = StudyRecord("a/b", "a", {"x": 1}, 1.5, "0.1.0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    journal.create(path, RECORD)
    return path


def bodies(path: Path, start: int = 0, end: int | None = None) -> list[object]:
    return [body for (kind, body), _ in journal.read_lines(path, start, end) if kind != "study"]


def append(path: Path, *values: int) -> None:
    writer = JournalWriter(path)
    for value in values:
        writer.append("event", {"i": value})
    writer.close()


def with_checksum(line: str) -> bytes:
    content = line.removesuffix("}").encode()
    return content + f',"crc32":"{zlib.crc32(content):08x}"}}\n'.encode()


def test_lines_come_back_in_order_from_any_offset_that_was_returned(path: Path) -> None:
    writer = JournalWriter(path)
    ends = [writer.end]
    for i in range(5):
        assert writer.append("event", {"i": i}) == ("event", {"i": i})
        ends.append(writer.end)
    writer.close()
    writer.close()
    assert [end for _, end in journal.read_lines(path)] == ends
    for i, end in enumerate(ends):
        assert bodies(path, start=end) == [{"i": k} for k in range(i, 5)]
        assert bodies(path, end=end) == [{"i": k} for k in range(i)]
        assert journal.is_end_of_line(path, end)
        assert not journal.is_end_of_line(path, end - 1)


def test_each_journal_has_its_own_id(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        journal.create(tmp_path / "s", RECORD)
        header = journal.read_header(tmp_path / "s")
        assert (header.record, header.converted_from) == (RECORD, None)
        ids.add(header.journal_id)
    assert len(ids) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["s"]  # no temporary file is left


def test_every_line_is_json_with_a_checksum_that_any_program_can_compute(path: Path) -> None:
    append(path, 0, 1)
    lines = path.read_bytes().splitlines()
    assert [list(json.loads(line)) for line in lines] == [
        ["study", "crc32"], ["event", "crc32"], ["event", "crc32"],
    ]  # fmt: skip
    assert list(json.loads(lines[0])["study"])[:2] == ["format", "written_by"]
    for line in lines:
        content, _, _ = line.rpartition(b',"crc32"')
        assert json.loads(line)["crc32"] == f"{zlib.crc32(content):08x}"


# Torn last lines.


@pytest.mark.parametrize("extra", [b"", b"\0" * 40])
def test_a_torn_last_line_is_dropped_and_cut_off_wherever_it_broke(
    path: Path, extra: bytes
) -> None:
    append(path, 0)
    before = path.stat().st_size
    append(path, 1)
    data = path.read_bytes()
    for size in range(before, len(data)):
        path.write_bytes(data[:size] + extra)
        assert bodies(path) == [{"i": 0}]
        append(path, 2)
        assert bodies(path) == [{"i": 0}, {"i": 2}]


def test_a_journal_torn_in_its_first_line_is_an_error(path: Path) -> None:
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(StoreError, match="damaged at line 1"):
            journal.read_header(path)


def test_zeros_after_a_power_cut_are_dropped(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    assert bodies(path) == []
    writer = JournalWriter(path)
    assert writer.end == size == path.stat().st_size
    writer.close()


# Damage.


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a journal with three events."""
    path = tmp_path_factory.mktemp("sound") / "journal.jsonl"
    journal.create(path, RECORD)
    append(path, 0, 12, 345)
    return path.read_bytes()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_is_read_as_anything_else(
    path: Path, sound: bytes, data: st.DataObject
) -> None:
    last = len(sound) - 1  # without its line break, a line would count as torn
    at = data.draw(st.integers(0, last) | st.integers(last - 25, last))
    changed = bytearray(sound)
    changed[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    with pytest.raises(StoreError, match=r"journal\.jsonl is damaged at line \d+ \(byte \d+\)"):
        list(journal.read_lines(path))


def test_a_changed_line_break_at_the_end_keeps_a_writer_from_cutting_the_line_off(
    path: Path,
) -> None:
    append(path, 0)
    data = path.read_bytes()
    for byte in (b" ", b"\0", b"\r"):
        damaged = data[:-1] + byte
        path.write_bytes(damaged)
        for use in (bodies, JournalWriter):
            with pytest.raises(StoreError, match=r"line 2 .* expected a line break"):
                use(path)
        assert path.read_bytes() == damaged


def test_a_wrong_checksum_is_named_with_its_line_and_what_loses_nothing(path: Path) -> None:
    append(path, 1, 2, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    at = len(lines[0] + lines[1])
    stated = lines[2][-11:-3].decode()
    changed = lines[2].replace(b'{"i":2}', b'{"i":9}')
    expected = f"{zlib.crc32(changed[:-21]):08x}"
    path.write_bytes(b"".join([*lines[:2], changed, lines[3]]))
    with pytest.raises(StoreError) as caught:
        bodies(path)
    assert str(caught.value) == (
        f"{path} is damaged at line 3 (byte {at}): "
        f"expected the checksum {expected}, the line says {stated}"
    )
    assert "keep the file" in caught.value.hint
    assert "journal.jsonl.damaged" in caught.value.hint
    assert bodies(path, start=at + len(changed)) == [{"i": 3}]


@pytest.mark.parametrize("line", ['{"event":{"i":1}}\n', '{"event": {"i"\n', "\n", "[1]\n"])
def test_a_line_without_a_checksum_is_damage(path: Path, line: str) -> None:
    at = path.stat().st_size
    with path.open("a") as file:
        file.write(line)
    with pytest.raises(StoreError, match=rf"line 2 \(byte {at}\): it does not end in a checksum"):
        bodies(path)


@pytest.mark.parametrize("line", ["[1]", "{}", '{"trial":{}}', "", '{"study":{}'])
@pytest.mark.parametrize("checked", [True, False])
def test_a_file_that_is_no_journal_is_an_error(path: Path, line: str, checked: bool) -> None:
    path.write_bytes(with_checksum(line) if checked else line.encode() + b"\n")
    with pytest.raises(StoreError, match="damaged at line 1"):
        journal.read_header(path)


def test_a_newer_format_is_refused_naming_both_versions(path: Path) -> None:
    study = json.loads(path.read_text())["study"]
    study |= {"format": journal.FORMAT + 1, "written_by": "9.9.9", "added": "unknown"}
    path.write_bytes(with_checksum(json.dumps({"study": study})))
    with pytest.raises(
        StoreVersionError, match=r"format 3.*LocalHPO 9\.9\.9; this LocalHPO \(0\..* up to 2"
    ) as caught:
        journal.read_header(path)
    assert "update LocalHPO" in caught.value.hint


def test_appending_after_the_file_was_removed_is_an_error(path: Path) -> None:
    path.unlink()
    with pytest.raises(StoreError, match="cannot append to"):
        JournalWriter(path)
    with pytest.raises(FileNotFoundError):
        journal.read_header(path)
