"""Waiting for pages."""

from __future__ import annotations

import time
from typing import Any


def wait_until(page: Any, condition: str, seconds: float = 20) -> None:
    """Waits for a condition; the browser's own way needs eval, which the pages forbid."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(30)
