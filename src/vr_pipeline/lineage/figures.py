"""Nested settings and results as flat names."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel


def flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield leaves of nested models, mappings and sequences by dotted name; lists of scalars are leaves."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from flattened(entry, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and any(
        isinstance(entry, Mapping | list | tuple | BaseModel) for entry in value
    ):
        for position, entry in enumerate(value):
            yield from flattened(entry, f"{prefix}.{position}")
    else:
        yield prefix, value


def numbers(content: Any, prefix: str) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of a JSON document by dotted name."""
    for key, value in flattened(content, prefix):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)
