"""The line of a check: ok, FAILED or skipped, and a sentence with its numbers."""

from __future__ import annotations

from collections.abc import Callable

from localhpo.errors import LocalHPOError

NEAR_MB = 300.0
"""Allowed difference of two measurements of the same memory, which are taken in turn."""


class FailedError(Exception):
    """A number is not as expected; the message has both."""


class SkippedError(Exception):
    """This machine does not allow the check; the message says why."""


def require_near(what: str, one_mb: float, other_mb: float, within_mb: float = NEAR_MB) -> str:
    """Return a sentence on two numbers that must be nearly equal.

    Raises:
        FailedError: they are not.
    """
    sentence = f"{what}: {one_mb:.0f} and {other_mb:.0f} MB"
    if abs(one_mb - other_mb) > within_mb:
        raise FailedError(f"{sentence}, more than {within_mb:.0f} MB apart")
    return sentence


def require(holds: bool, sentence: str) -> str:
    """Return a sentence on a condition that must hold.

    Raises:
        FailedError: it does not hold.
    """
    if not holds:
        raise FailedError(sentence)
    return sentence


def run_check(name: str, check: Callable[[], str]) -> bool:
    """Run a check and print its line; return whether it did not fail."""
    try:
        verdict, sentence = "ok", check()
    except SkippedError as skipped:
        verdict, sentence = "skipped", str(skipped)
    except FailedError as failed:
        verdict, sentence = "FAILED", str(failed)
    except Exception as error:  # noqa: BLE001 - the other checks must still run
        hint = f" ({error.hint})" if isinstance(error, LocalHPOError) and error.hint else ""
        verdict, sentence = "FAILED", f"{type(error).__name__}: {error}{hint}"
    print(f"{verdict:8} {name}: {sentence}", flush=True)
    return verdict != "FAILED"
