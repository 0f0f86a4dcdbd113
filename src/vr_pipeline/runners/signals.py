"""Handlers of signals outlive the libraries that replace them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


@contextmanager
def signals_kept() -> Iterator[None]:
    """Put the handlers that ask a process to end back after the block.

    Libraries leave their own behind: Ray's for SIGTERM ends the process before anything is said, and those of torch's
    launcher make Ctrl-C in a later node look like an error. Nothing is done outside the main thread, where Python
    neither runs nor takes handlers.
    """
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None is a handler that was not set by Python, which cannot set it again.
            if handler is not None:
                signal.signal(number, handler)
