"""How numbers and texts are spelled wherever a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from localhpo.errors import ConfigurationError
from localhpo.space import Space
from localhpo.space.values import spelled
from localhpo.store.records import WAITS
from localhpo.trial import Config

_BARS = "▁▂▃▄▅▆▇█"


def score(value: float | None) -> str:
    """Return a score with five significant digits, or a dash."""
    return "-" if value is None else f"{value:.5g}"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(megabytes: float | None) -> str:
    """Return an amount of memory: `310 MB`, `12.5 GB`."""
    if megabytes is None:
        return "-"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def energy(joules: float) -> str:
    """Return an amount of energy: `310 J`, `0.25 kWh`."""
    return f"{joules:.0f} J" if joules < 36_000 else f"{joules / 3.6e6:.2f} kWh"


def waits(waited_s: Mapping[str, float]) -> str:
    """Return what was waited for: `12 s for a proposal, 3.0 s for a device`."""
    names = {**WAITS, "user": "the user"}
    return ", ".join(f"{duration(s)} for {names.get(c, c)}" for c, s in waited_s.items())


def count(number: int, noun: str) -> str:
    """Return `1 trial`, `2 trials`, `12,345 tokens`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float) -> str:
    """Return a share in whole percent."""
    return f"{100 * share:.0f} %"


def numbers(trials: Sequence[int], limit: int = 8) -> str:
    """Return trial numbers as a list that stays short: `1, 4, 7 and 3 more`."""
    shown = ", ".join(str(number) for number in trials[:limit])
    rest = len(trials) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


def values(space: Space, config: Config) -> dict[str, str]:
    """Return each value of a configuration as it is spelled, strings without quotes.

    A value that the space does not know (a study whose space has changed) is shown as it is.
    """
    return {name: _value(space, name, config) for name in config}


def _value(space: Space, name: str, config: Config) -> str:
    value = config[name]
    if isinstance(value, str):
        return plain(value)
    try:
        return space[name].brief_text(value)
    except (KeyError, ConfigurationError):
        return str(value)


def fixed(given: Config) -> dict[str, str]:
    """Return each value that is fixed, strings without quotes."""
    return {n: plain(v) if isinstance(v, str) else spelled(v) for n, v in given.items()}


def assignments(texts: Mapping[str, str]) -> str:
    """Return `name=value` pairs on one line."""
    return " ".join(f"{plain(name)}={value}" for name, value in texts.items())


def said(message: str, stderr_tail: str) -> str:
    """Return what a failed trial said: the message, and its last line where that adds to it."""
    message = plain(message)
    last = plain(plain_lines(stderr_tail).strip().rpartition("\n")[2])
    return message if last in message else f"{message}: {last}"


def plain(text: str) -> str:
    """Return text of a user or a script without control characters, on one line.

    A training script's output may hold escape sequences: they must not reach a terminal.
    """
    return " ".join(_without_controls(text).split())


def plain_lines(text: str) -> str:
    """Return text without control characters; its lines stay."""
    return "\n".join(_without_controls(line).rstrip() for line in text.splitlines())


def _without_controls(text: str) -> str:
    return "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or character.isprintable()
    )


def sparkline(series: Sequence[float], width: int = 60) -> str:
    """Return a curve as one line of bars, the lowest value lowest; long ones are thinned."""
    if not series:
        return ""
    bars = min(width, len(series))
    # The last value of each stretch: an incumbent curve must end at the best.
    picked = [series[(i + 1) * len(series) // bars - 1] for i in range(bars)]
    low, span = min(picked), max(picked) - min(picked)
    if span == 0:
        return _BARS[0] * bars
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in picked)
