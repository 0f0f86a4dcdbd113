"""Numbers as text: a true minus sign, a dash for missing ones, shares in percent."""

from __future__ import annotations

import math
from typing import Any


def as_number(value: Any) -> float:
    """Read a number of a JSON file, with NaN for null."""
    return math.nan if value is None else float(value)


def plain(value: float | None, digits: int = 2) -> str:
    """Write a number with ``digits`` decimals; a dash if it is missing."""
    number = as_number(value)
    if not math.isfinite(number):
        return "–"
    text = f"{number:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """Write a number with its sign; no sign if it rounds to 0."""
    text = plain(value, digits)
    return f"+{text}" if as_number(value) > 0 and text != "–" and float(text) != 0 else text


def percent(value: float | None) -> str:
    """Write a share of 0 to 1 as a percentage."""
    number = as_number(value)
    return f"{100 * number:.1f} %" if math.isfinite(number) else "–"


def counted(number: int, what: str) -> str:
    """Write a number of things, in the plural unless it is 1."""
    return f"{int(number):,} {what}{'' if int(number) == 1 else 's'}"
