"""Clips reduced to cells, against means by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.video.cells import cells, distance

SIDE, FRAMES = 16, 8


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
def test_a_clip_of_any_size_is_reduced_to_means(frames: int, height: int, width: int) -> None:
    random = np.random.default_rng([frames, height, width])
    clip = random.integers(0, 256, (frames, height, width, 3)).astype(np.uint8)
    small = cells(clip, side=SIDE, times=FRAMES)
    assert small.shape == (FRAMES, SIDE, SIDE, 3)
    assert clip.min() / 255 - 1e-9 <= small.min() <= small.max() <= clip.max() / 255 + 1e-9
    if height % SIDE == 0 and width % SIDE == 0:
        first = clip[0].reshape(SIDE, height // SIDE, SIDE, width // SIDE, 3).mean(axis=(1, 3)) / 255
        assert np.allclose(small[0], first)


def test_means_of_whole_cells() -> None:
    clip = np.arange(32 * 48 * 3, dtype=np.uint32).reshape(1, 32, 48, 3).astype(np.uint8)
    expected = clip[0].reshape(SIDE, 2, SIDE, 3, 3).mean(axis=(1, 3)) / 255
    assert np.allclose(cells(clip, side=SIDE, times=FRAMES)[0], expected)


def test_the_distance_is_the_root_mean_square() -> None:
    assert distance(np.array([0.0, 1.0]), np.array([0.0, 0.0])) == pytest.approx(np.sqrt(0.5))
