"""What files are by their first bytes, and whether they are whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.video import containers


@given(size=st.integers(0, 2**49 - 2), length=st.integers(1, 8))
def test_sizes_of_matroska(size: int, length: int) -> None:
    if size >= (1 << 7 * length) - 1:
        size %= (1 << 7 * length) - 1
    coded = ((1 << 7 * length) | size).to_bytes(length, "big")
    assert containers._ebml_size(b"xy" + coded + b"z", 2) == (size, 2 + length)
    left_open = ((1 << 7 * length) | ((1 << 7 * length) - 1)).to_bytes(length, "big")
    assert containers._ebml_size(left_open, 0) == (None, length)
