"""Handles Ctrl-C and other signals: the study ends in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_ASKING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_signal(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` on SIGINT, SIGTERM and SIGHUP; only in the main thread, as Python requires.

    A SIGHUP that is ignored stays ignored, for `nohup`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    asking = _ASKING if ignored else (*_ASKING, signal.SIGHUP)
    before = {one: signal.signal(one, lambda *_: interrupt()) for one in asking}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
