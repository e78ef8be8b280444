"""Spelling of numbers, texts, origins and values wherever a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from localhpo.errors import ConfigurationError
from localhpo.objective import Constraint
from localhpo.space import Space
from localhpo.space.values import spell_value
from localhpo.store.records import WAIT_TEXTS
from localhpo.task import Task
from localhpo.trial import Config, Origin, Trial

_BARS = "▁▂▃▄▅▆▇█"
_SOURCES = {
    "llm": "the language model",
    "meta": "similar data sets",
    "transfer": "past studies",
    "default": "the task's default configuration",
    "user": "the user (enqueued)",
    "external": "another program",
}
_ENGINES = {
    "bo": "Bayesian optimization",
    "gp": "Bayesian optimization (Optuna's GP)",
    "tpe": "TPE",
    "cmaes": "CMA-ES",
    "nsga2": "NSGA-II",
    "random": "random search",
    "center": "the center of the space",
}
"""Names in words of the origins; an engine of a plug-in goes by its own name."""


def value(number: float | None) -> str:
    """Return the value of an objective with five significant digits, or a dash."""
    return "-" if number is None else f"{number:.5g}"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def memory(megabytes: float | None) -> str:
    """Return an amount of memory: `310 MB`, `12.5 GB`."""
    if megabytes is None:
        return "-"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def energy(joules: float) -> str:
    """Return an amount of energy: `310 J`, `0.25 kWh`."""
    return f"{joules:.0f} J" if joules < 36_000 else f"{joules / 3.6e6:.2f} kWh"


def waiting_times(waited_s: Mapping[str, float]) -> str:
    """Return what was waited for: `12 s for a proposal, 3.0 s for free memory`."""
    causes = {cause: s for cause, s in waited_s.items() if cause != "user"}
    texts = [f"{duration(s)} for {WAIT_TEXTS.get(cause, cause)}" for cause, s in causes.items()]
    if "user" in waited_s:
        texts.append(f"{duration(waited_s['user'])} while stopped by the user")
    return ", ".join(texts)


def origin_text(origin: Origin) -> str:
    """Return where a proposal comes from: `Bayesian optimization, guided by the language model`."""
    names = _SOURCES | ({"user": "what the user expects"} if origin.engine else {})
    sources = [names.get(source, source) for source in (origin.source or "").split("+") if source]
    engine = origin.engine and _ENGINES.get(origin.engine, printable(origin.engine))
    if not sources:
        return engine or "unknown"
    listed = " and ".join(filter(None, [", ".join(sources[:-1]), sources[-1]]))
    return f"{engine}, guided by {listed}" if engine else listed


def constraint_text(constraint: Constraint, violation: float) -> str:
    """Return the metric of a trial against its bound: `latency_ms 250 > 200`, or `120 <= 200`."""
    name = printable(constraint.name)
    if math.isnan(violation):
        return f"{name} unknown"
    if constraint.min is not None and constraint.max is not None:
        where = f"{constraint.min:g} to {constraint.max:g}"
        return (
            f"{name} {value(violation)} outside {where}" if violation > 0 else f"{name} in {where}"
        )
    if constraint.max is not None:
        sign = ">" if violation > 0 else "<="
        return f"{name} {value(constraint.max + violation)} {sign} {constraint.max:g}"
    sign, low = "<" if violation > 0 else ">=", constraint.min or 0.0
    return f"{name} {value(low - violation)} {sign} {low:g}"


def violations_text(trial: Trial, constraints: Sequence[Constraint]) -> str:
    """Return the constraints that a trial violates, with its values; empty where all hold."""
    pairs = zip(constraints, trial.violations, strict=False)
    return ", ".join(constraint_text(one, by) for one, by in pairs if not by <= 0)


def goals_text(task: Task) -> str:
    """Return what a task optimizes: `maximize val_f1, minimize cost; subject to wall_s <= 60`."""
    aims = ", ".join(f"{one.direction} {printable(one.name)}" for one in task.objectives)
    limits = ", ".join(printable(one.describe()) for one in task.constraints)
    return f"{aims}; subject to {limits}" if limits else aims


def count(number: int, noun: str) -> str:
    """Return `1 trial`, `2 trials`, `12,345 tokens`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float) -> str:
    """Return a share in whole percent."""
    return f"{100 * share:.0f} %"


def trial_numbers(trials: Sequence[int], limit: int = 8) -> str:
    """Return trial numbers as a list that stays short: `1, 4, 7 and 3 more`."""
    shown = ", ".join(str(number) for number in trials[:limit])
    rest = len(trials) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


def config_texts(space: Space, config: Config) -> dict[str, str]:
    """Return each value of a configuration in its canonical spelling, strings without quotes.

    A value that is not in the space (whose bounds have changed since) is shown as it is.
    """
    return {name: _value(space, name, config) for name in config}


def _value(space: Space, name: str, config: Config) -> str:
    value = config[name]
    if isinstance(value, str):
        return printable(value)
    try:
        return space[name].brief_text(value)
    except (KeyError, ConfigurationError):
        return str(value)


def fixed_texts(given: Config) -> dict[str, str]:
    """Return each fixed value, strings without quotes."""
    return {n: printable(v) if isinstance(v, str) else spell_value(v) for n, v in given.items()}


def assignments(texts: Mapping[str, str]) -> str:
    """Return `name=value` pairs on one line."""
    return " ".join(f"{printable(name)}={value}" for name, value in texts.items())


def failure_text(message: str, stderr_tail: str) -> str:
    """Return the message of a failure, with the last line of its stderr where that adds to it."""
    message = printable(message)
    last = printable(printable_lines(stderr_tail).strip().rpartition("\n")[2])
    return message if last in message else f"{message}: {last}"


def printable(text: str) -> str:
    """Return text of a user or a script without control characters, on one line.

    A training script's output may hold escape sequences: they must not reach a terminal.
    """
    return " ".join(_without_controls(text).split())


def printable_lines(text: str) -> str:
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
