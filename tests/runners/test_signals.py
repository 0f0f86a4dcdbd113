"""What libraries do to the handlers of signals does not last."""

from __future__ import annotations

import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from vr_pipeline.runners.signals import signals_kept


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_handlers_are_put_back_also_after_an_error(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with contextlib.suppress(ZeroDivisionError), signals_kept():
        signal.signal(number, signal.SIG_IGN)
        raise ZeroDivisionError
    assert signal.getsignal(number) is before


def test_other_threads_leave_handlers_alone() -> None:
    def work() -> str:
        with signals_kept():
            return "done"

    # Python does not let a handler be set there; the result would be that error.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == "done"
