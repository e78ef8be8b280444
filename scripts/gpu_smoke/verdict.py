"""How a check ends: with a sentence that has its numbers, and one of three words before it."""

from __future__ import annotations

from collections.abc import Callable

from localhpo.errors import LocalHPOError

NEAR_MB = 300.0
"""Two numbers of the same memory may differ by so much: they are taken one after the other."""


class FailedError(Exception):
    """A number is not what it should be; the message has both."""


class SkippedError(Exception):
    """This machine cannot show it; the message says why."""


def near(what: str, one_mb: float, other_mb: float, within_mb: float = NEAR_MB) -> str:
    """Return a sentence on two numbers that should be the same.

    Raises:
        FailedError: they are not.
    """
    sentence = f"{what}: {one_mb:.0f} and {other_mb:.0f} MB"
    if abs(one_mb - other_mb) > within_mb:
        raise FailedError(f"{sentence}, more than {within_mb:.0f} MB apart")
    return sentence


def must(holds: bool, sentence: str) -> str:
    """Return a sentence on something that should hold.

    Raises:
        FailedError: it does not.
    """
    if not holds:
        raise FailedError(sentence)
    return sentence


def tell(name: str, check: Callable[[], str]) -> bool:
    """Make a check and print its line; False where it failed."""
    try:
        verdict, sentence = "ok", check()
    except SkippedError as skipped:
        verdict, sentence = "skipped", str(skipped)
    except FailedError as failed:
        verdict, sentence = "FAILED", str(failed)
    except Exception as error:  # noqa: BLE001 - the other checks are to be made all the same
        hint = f" ({error.hint})" if isinstance(error, LocalHPOError) and error.hint else ""
        verdict, sentence = "FAILED", f"{type(error).__name__}: {error}{hint}"
    print(f"{verdict:8} {name}: {sentence}", flush=True)
    return verdict != "FAILED"
