"""Tiles of images against the families' own processors that need no torchvision, and against the models' own counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_judges import llava_onevision
from vr_pipeline.vlm.families.smolvlm import number_words
from vr_pipeline.vlm.frames import normalise, resize_bicubic
from vr_pipeline.vlm.tiles import (
    anyres_tiles,
    anyres_token_count,
    cut,
)

SIZES = [(96, 96), (40, 250), (333, 120), (600, 410), (48, 47)]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


def normalised(tiles: np.ndarray, processor: Any) -> np.ndarray:
    return normalise(tiles, tuple(processor.image_mean), tuple(processor.image_std)).transpose(0, 3, 1, 2)


def test_cut_goes_row_by_row() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    tiles = cut(image, 2, 2)
    assert tiles.shape == (6, 2, 2, 3)
    assert np.array_equal(tiles[4], image[2:4, 2:4])


@pytest.fixture(scope="module")
def llava(tokenizer: Any) -> Any:
    model = llava_onevision(tokenizer).model.model
    model.config.image_grid_pinpoints = [[24 * rows, 24 * columns] for rows in range(1, 4) for columns in range(1, 4)]
    return model


@given(height=st.integers(8, 400), width=st.integers(8, 400), most=st.sampled_from([1, 2, 9]))
@settings(max_examples=60, deadline=None)
def test_anyres_token_count_is_what_the_model_makes(llava: Any, height: int, width: int, most: int) -> None:
    import torch

    candidates = [(rows, columns) for rows, columns in llava.config.image_grid_pinpoints]
    tiles = anyres_tiles(picture(height, width), 24, candidates, resize_bicubic)
    features = [torch.zeros(len(tiles), 36, 4)]
    _, counts = llava.pack_image_features(features, [[height, width]], torch.zeros(4), f"anyres_max_{most}")
    assert anyres_token_count((height, width), 6, 24, candidates, most) == int(counts[0])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (8, "eight"),
        (16, "sixteen"),
        (20, "twenty"),
        (64, "sixty-four"),
        (100, "one hundred"),
        (124, "one hundred and twenty-four"),
        (768, "seven hundred and sixty-eight"),
        (1005, "one thousand and five"),
        (2317, "two thousand, three hundred and seventeen"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert number_words(number) == words
