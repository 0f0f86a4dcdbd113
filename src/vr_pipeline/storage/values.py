"""Values from files as texts or numbers, whatever their type in the file."""

import math
from decimal import Decimal
from typing import Any


def as_text(value: Any) -> str:
    """Return a value as text: missing is empty, 1.0 is '1', True is 'True'.

    Raises:
        ValueError: it is a list or the like, bytes, or a number so large that a float no longer holds its digits.
    """
    if isinstance(value, str):
        return value
    if is_missing(value):
        return ""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        if abs(value) > 2**53:
            raise ValueError(f"{value!r} is a rounded number; write it as text or as a whole number")
        return str(int(value))
    if isinstance(value, bytes | list | tuple | dict | set) or getattr(value, "ndim", None):
        raise ValueError(f"is not text but {type(value).__name__}")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def as_number(value: Any) -> float:
    """Return a value as a finite number; NaN if it is missing.

    Raises:
        ValueError: it is no number, or not finite.
    """
    if is_missing(value) or (isinstance(value, str) and value.strip().lower() in ("", "nan", "null", "none", "na")):
        return math.nan
    try:
        if isinstance(value, bool | bytes) or (isinstance(value, str) and "_" in value):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"'{str(value)[:40]}' is not a number") from None
    return number


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN or similar; a text never is."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return (isinstance(value, float) and math.isnan(value)) or (isinstance(value, Decimal) and value.is_nan())
