"""Resizing and patches against brute force and the official processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.vlm.frames import (
    area_weights,
    fitting_size,
    patchify,
    resize_area,
    resize_bicubic,
    resize_clip_bicubic,
    resize_clip_lanczos,
    resize_lanczos,
)


def noise(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@given(st.integers(1, 40), st.integers(1, 40))
def test_area_weights_are_averages(source: int, target: int) -> None:
    weights = area_weights(source, target)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    # Every source pixel has the same influence in total: nothing is skipped, nothing counted twice.
    np.testing.assert_allclose(weights.sum(axis=0), target / source, rtol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 7])
def test_enlarged_clips_give_exactly_the_original(factor: int) -> None:
    clip = noise(3, 16, 12)
    enlarged = clip.repeat(factor, axis=1).repeat(factor, axis=2)
    assert np.array_equal(resize_area(enlarged, 16, 12), clip.astype(np.float32))


def test_area_of_fractional_ratio_by_brute_force() -> None:
    clip = noise(2, 15, 10)
    fine = clip.astype(np.float64).repeat(4, axis=1).repeat(4, axis=2)  # 60 x 40 divides into 12 x 8
    expected = fine.reshape(2, 12, 5, 8, 5, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(resize_area(clip, 12, 8), expected, atol=1e-3)


def test_patch_order_by_brute_force() -> None:
    clip = noise(5, 8, 16).astype(np.float32)
    patches, grid = patchify(clip, patch=2, temporal_patch=2, merge=2)
    assert grid == (3, 4, 8)
    padded = np.concatenate([clip, clip[-1:]])
    expected = []
    for time in range(3):
        for block_row in range(2):
            for block_column in range(4):
                for row in range(2):
                    for column in range(2):
                        y, x = (block_row * 2 + row) * 2, (block_column * 2 + column) * 2
                        piece = padded[time * 2 : time * 2 + 2, y : y + 2, x : x + 2]
                        expected.append(piece.transpose(3, 0, 1, 2).ravel())
    assert np.array_equal(patches, np.stack(expected))


@pytest.mark.parametrize("size", [(96, 112), (240, 400), (100, 151)])
@pytest.mark.parametrize(
    ("of_clip", "of_image"), [(resize_clip_bicubic, resize_bicubic), (resize_clip_lanczos, resize_lanczos)]
)
def test_clips_are_resized_as_images_but_for_rounding(of_clip: Any, of_image: Any, size: tuple[int, int]) -> None:
    clip = noise(3, 100, 151)
    clip.flags.writeable = False
    difference = np.abs(of_clip(clip, *size) - of_image(clip, *size))
    assert difference.max() <= 5
    assert difference.mean() < 0.1


@pytest.mark.parametrize(
    ("size", "tokens"), [((100, 151), 128_000), ((480, 720), 128_000), ((1100, 700), 128_000), ((480, 720), 700)]
)
def test_qwen_clips_have_the_official_size_and_pixels(
    size: tuple[int, int], tokens: int, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    import torch
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    from tiny_judges import qwen2_vl
    from vr_pipeline.vlm.families.qwen2_vl import Qwen2VL

    family: Any = qwen2_vl(tokenizer)
    monkeypatch.setattr("vr_pipeline.vlm.families.qwen2_vl._CLIP_TOKENS", 0.9 * tokens)
    family.settings, vision = Qwen2VL.default_settings, family.model.config.vision_config
    vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size = 14, 2, 2
    clip = noise(4, *size)
    processor = Qwen2VLVideoProcessor(cap_pixels_per_frame=True, max_video_tokens=tokens)
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2)
    official = processor(videos=[frames], do_sample_frames=False, return_tensors="np")
    prepared = family.prepare(clip, 2.0)
    assert prepared.vision["grid"].tolist() == official["video_grid_thw"].tolist()
    np.testing.assert_allclose(prepared.vision["patches"], official["pixel_values_videos"], atol=1e-5)


@given(st.integers(4, 3000), st.integers(4, 3000))
@settings(deadline=None)
def test_fitting_size_keeps_to_its_limits(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="elongated"):
            fitting_size(height, width, multiple=28, min_pixels=3136, max_pixels=1003520)
        return
    new_height, new_width = fitting_size(height, width, multiple=28, min_pixels=3136, max_pixels=1003520)
    assert new_height % 28 == new_width % 28 == 0
    assert new_height >= 28
    assert new_width >= 28
    # One side can reach the smallest multiple, where the other alone keeps the area.
    if min(new_height, new_width) > 28:
        assert 3136 <= new_height * new_width <= 1003520
