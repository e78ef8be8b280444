"""Ctrl-C as a request: the study ends in order instead of in the middle of a line."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_ASKING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_signal(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` on SIGINT and SIGTERM; in the main thread only, as Python has it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, lambda *_: interrupt()) for one in _ASKING}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
