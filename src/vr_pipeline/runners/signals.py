"""Restoration of signal handlers that libraries replace."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restore the handlers of terminating signals after the block.

    Ray's handler for SIGTERM ends the process without a message, and those of torch's launcher make Ctrl-C in a later
    node look like an error. Outside the main thread nothing is done, since Python only allows handlers there.
    """
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None is a handler that was not set from Python and cannot be restored.
            if handler is not None:
                signal.signal(number, handler)
