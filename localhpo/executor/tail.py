"""Reads what a trial reports while it writes, each byte once.

A line counts once its end is there; a torn one waits. One call reads a bounded amount, so a
script that reports a million lines does not hold the loop up: `at_end` tells whether there may
be more. A script that goes on reporting like that is thinned out (see `THINNED_AFTER`), so that
neither memory nor the store grows with it. Lines that cannot be used are counted, never fatal.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

from localhpo.errors import TaskError
from localhpo.trial import Measurement

CHUNK_BYTES = 1 << 18
"""Bytes read by one call: some thousand lines, a few milliseconds."""
LINE_BYTES = 1 << 16
"""A longer line is skipped."""
THINNED_AFTER = 100_000
"""Measurements of a trial that are all kept. Beyond them a call keeps the newest value of each
metric, and goes straight to the last chunk of a file that grows faster than it is read."""
_LAST_STEP = 2**63 - 1

_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|(?:nan|inf(?:inity)?)\b)", re.IGNORECASE
)
# What a terminal would act on and a reader must not see: colors, cursor moves, bells.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class LineReader:
    """Reads the completed lines of a growing file."""

    def __init__(self, path: Path) -> None:
        """Begin at the start of the file, which need not be there yet."""
        self._path = path
        self._offset = 0
        self._torn = b""
        self._too_long = False
        self.at_end = True
        self.skipped = 0

    def read(self, *, newest: bool = False) -> list[bytes]:
        """Return the lines that were completed, without their ends; `newest` skips to the last."""
        if newest:
            self._skip_to_last_chunk()
        data = self._chunk()
        self._offset += len(data)
        self.at_end = len(data) < CHUNK_BYTES
        *lines, torn = (self._torn + data).split(b"\n")
        if lines and self._too_long:
            lines, self._too_long = lines[1:], False
        if len(torn) > LINE_BYTES:
            self.skipped += not self._too_long
            self._too_long, torn = True, b""
        self._torn = torn
        return lines

    def read_unfinished(self) -> list[bytes]:
        """Return the last line, whose line break is missing."""
        torn, self._torn = self._torn, b""
        return [torn] if torn and not self._too_long else []

    def _skip_to_last_chunk(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            start = self._path.stat().st_size - CHUNK_BYTES
            if start > self._offset:
                self._offset, self._torn = start, b""
                self._too_long = True  # the first line of the chunk has lost its beginning

    def _chunk(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                return file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return b""


class MeasurementReader:
    """Reads the measurements in a growing file."""

    def __init__(self, path: Path, parse: Callable[[bytes, int], list[Measurement] | None]) -> None:
        """Begin at the start of the file.

        Args:
            path: need not be there yet.
            parse: from a line, and the step that follows the last one, to its measurements;
                None for a line that cannot be used.
        """
        self._lines = LineReader(path)
        self._parse = parse
        self._step = 0
        self._unusable = 0
        self._found = 0

    @property
    def at_end(self) -> bool:
        """Whether the last call has read all there was."""
        return self._lines.at_end

    @property
    def skipped(self) -> int:
        """Lines that could not be used."""
        return self._unusable + self._lines.skipped

    @property
    def thinned(self) -> bool:
        """Whether there were so many measurements that not all are returned any more."""
        return self._found > THINNED_AFTER

    def read(self) -> list[Measurement]:
        """Return what was reported since the last call, in order."""
        if not self.thinned:
            return self._measurements(self._lines.read())
        found = self._measurements(self._lines.read(newest=True))
        return list({one.name: one for one in found}.values())

    def finish(self) -> list[Measurement]:
        """Return the measurements of an unfinished last line; only after the trial has ended."""
        return self._measurements(self._lines.read_unfinished())

    def _measurements(self, lines: list[bytes]) -> list[Measurement]:
        found: list[Measurement] = []
        for line in lines:
            measurements = self._parse(line, self._step + 1)
            self._unusable += measurements is None
            if measurements:
                self._step = measurements[-1].step
                found += measurements
        self._found += len(found)
        return found


def parse_line(line: bytes, next_step: int) -> list[Measurement] | None:
    """Return the measurements of one line of the metrics file; None where it is garbage.

    Every key with a number is a metric, but for `step` (left out: `next_step`) and `time` (left
    out: now). Other keys are the script's own business.
    """
    if not line.strip():
        return []
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    step = _number(record.pop("step", next_step))
    when = _number(record.pop("time", None))
    if step is None or not step.is_integer() or abs(step) > _LAST_STEP:
        return None
    if when is None or not math.isfinite(when):
        when = time.time()
    values = {name: _number(value) for name, value in record.items()}
    found = [Measurement(int(step), n, v, when) for n, v in values.items() if v is not None]
    return found or None


def parse_stdout(
    pattern: re.Pattern[str], metric: str, line: bytes, next_step: int
) -> list[Measurement] | None:
    """Return the measurements of one line of standard output, found by the user's pattern.

    The pattern's group says where the number starts; how far it goes is decided here, so that
    `([0-9.]+)` reads 1e-05 as 1e-05 and not as 1. Steps count the matches. A progress bar's
    carriage returns end lines too.
    """
    found: list[Measurement] = []
    for text in line.decode(errors="replace").split("\r"):
        match = pattern.search(text)
        if match is not None and match[1] is not None:
            value = number_at(text, match.start(1))
            if value is None:
                return found or None
            found.append(Measurement(next_step + len(found), metric, value, time.time()))
    return found


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a `stdout_regex` that can be used.

    Raises:
        TaskError: it is no regular expression, or has not exactly one group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as exc:
        raise TaskError(f"[task] stdout_regex {pattern!r} is no regular expression: {exc}") from exc
    if compiled.groups != 1:
        raise TaskError(
            f"[task] stdout_regex {pattern!r} must have one group, the number; it has"
            f" {compiled.groups}",
            hint=r"for example: stdout_regex = 'val_f1: (\S+)'; (?:...) groups without counting",
        )
    return compiled


def number_at(text: str, start: int) -> float | None:
    """Return the number that starts at `start`, a sign directly before it included."""
    while text[start : start + 1].isspace():
        start += 1
    if text[start - 1 : start] in ("-", "+") and not text[: start - 1][-1:].isalnum():
        start -= 1
    match = _NUMBER.match(text, start)
    return None if match is None else float(match[0])


def last_lines(path: Path, count: int = 20, line_chars: int = 400) -> str:
    """Return the last lines of an output as plain text; "" where there is none.

    Of a progress bar, which overwrites its line, the last state is kept.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LINE_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    shown = [_CONTROL.sub("", line.rstrip().rpartition("\r")[2]) for line in text.split("\n")]
    kept = [line for line in shown if line.strip()][-count:]
    return "\n".join(
        line if len(line) <= line_chars else line[:line_chars] + "..." for line in kept
    )
