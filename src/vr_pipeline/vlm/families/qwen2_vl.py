"""Qwen2-VL and Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, PreparedClip, Settings
from vr_pipeline.vlm.frames import fitting_size, normalise, patchify
from vr_pipeline.vlm.packing import IntArray

if TYPE_CHECKING:
    import torch


# Smallest and largest area of an image and of a clip's frame, in pixels, as published for these models.
_IMAGE_PIXELS = (56 * 56, 1280 * 28 * 28)
_FRAME_PIXELS = (128 * 28 * 28, 768 * 28 * 28)
# Visual tokens of a whole clip, at most: frames of long clips are shown smaller, down to the smallest area.
_CLIP_TOKENS = 0.9 * 128_000


class QwenSettings(Settings):
    """As for every family; areas that are not given are the published ones, which differ for images and clips."""

    min_pixels: int | None = Field(  # type: ignore[assignment]
        None, ge=1, description="Smallest area of a frame where the size is not fixed; null for the published one."
    )
    max_pixels: int | None = Field(  # type: ignore[assignment]
        None, ge=1, description="Largest area of a frame where the size is not fixed; null for the published one."
    )


class Qwen2VL(Family):
    """Qwen2-VL: three position axes (time, height, width), temporal patches, neighbouring patches merged."""

    model_name = "Qwen2VLForConditionalGeneration"
    settings_class = QwenSettings
    answers_version = "text above the clip"
    default_settings: Settings = QwenSettings(
        before_clip="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>",
        after_clip="<|vision_end|>",
        after_question=" Answer yes or no.<|im_end|>\n<|im_start|>assistant\n",
        frames_per_second=2.0,
        num_frames=768,
    )

    def __init__(self, model: Any, tokenizer: Any, settings: Settings) -> None:
        super().__init__(model, tokenizer, settings)
        self._before = self.text_ids(settings.before_clip)
        self._after = self.text_ids(settings.after_clip)
        self._positions: dict[tuple[object, ...], tuple[IntArray, int]] = {}

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        return positions

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        vision = self.model.config.vision_config
        settings = self.settings
        is_image = self.is_image(frames)
        if settings.height is not None and settings.width is not None:
            size = (settings.height, settings.width)
        else:
            multiple = vision.patch_size * vision.spatial_merge_size
            smallest, largest = _IMAGE_PIXELS if is_image else _FRAME_PIXELS
            largest = settings.max_pixels or largest
            smallest = settings.min_pixels or min(smallest, largest)
            if not is_image:
                share = int(_CLIP_TOKENS * multiple**2) * vision.temporal_patch_size // len(frames)
                largest = max(min(largest, share), int(1.05 * smallest))
            size = fitting_size(*frames.shape[1:3], multiple=multiple, min_pixels=smallest, max_pixels=largest)
        resized = self.resizer(of_image=is_image)(frames, *size)
        patches, grid = patchify(
            normalise(resized, settings.mean, settings.std),
            patch=vision.patch_size,
            temporal_patch=vision.temporal_patch_size,
            merge=vision.spatial_merge_size,
        )
        placeholder = self.model.config.image_token_id if is_image else self.model.config.video_token_id
        visual = int(np.prod(grid)) // vision.spatial_merge_size**2
        token_ids = np.array([*self._before, *[placeholder] * visual, *self._after])
        positions, next_position = self._prefix_positions(token_ids, grid, is_image, frames_per_second)
        return PreparedClip(token_ids, positions, next_position, {"patches": patches, "grid": np.array([grid])})

    def _prefix_positions(
        self, token_ids: IntArray, grid: tuple[int, int, int], is_image: bool, frames_per_second: float | None
    ) -> tuple[IntArray, int]:
        """Return positions of the prefix, visual tokens as the model's class places them, and of what follows it.

        Text counts on from one above the highest position so far, on any axis, as these models were trained
        (arXiv 2409.12191, section 2.1, on M-RoPE). transformers 5.23 starts it above rows and columns only, which lies
        inside a clip that is longer in time.
        """
        import torch

        seconds = self._seconds_per_grid(frames_per_second)
        key = (grid, is_image, seconds)
        if key not in self._positions:
            ids = torch.from_numpy(token_ids)[None]
            kinds = (ids == self.model.config.image_token_id).int() + 2 * (
                ids == self.model.config.video_token_id
            ).int()
            grids = torch.tensor([grid])
            options: dict[str, Any] = {"image_grid_thw": grids} if is_image else {"video_grid_thw": grids}
            if seconds is not None and not is_image:
                options["second_per_grid_ts"] = torch.tensor([seconds])
            positions, _ = self.model.model.get_rope_index(ids, mm_token_type_ids=kinds, **options)
            found = positions[:, 0].numpy().copy()
            start = len(token_ids) - len(self._after)
            above = int(found[:, :start].max()) + 1
            found[:, start:] = np.arange(above, above + len(self._after))
            self._positions[key] = (found, above + len(self._after))
        return self._positions[key]

    def _seconds_per_grid(self, frames_per_second: float | None) -> float | None:
        return None

    def vision_features(self, clips: Sequence[PreparedClip]) -> torch.Tensor:
        import torch

        patches = torch.from_numpy(np.concatenate([clip.vision["patches"] for clip in clips]))
        grids = torch.from_numpy(np.concatenate([clip.vision["grid"] for clip in clips]))
        visual = self.model.model.visual
        output = visual(patches.to(self.device, visual.dtype), grid_thw=grids.to(self.device))
        features: torch.Tensor = output.pooler_output
        return features


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: as Qwen2-VL, with windowed attention in the vision tower and positions in real time."""

    model_name = "Qwen2_5_VLForConditionalGeneration"

    def _seconds_per_grid(self, frames_per_second: float | None) -> float | None:
        rate = frames_per_second or self.settings.frames_per_second or 2.0
        return float(self.model.config.vision_config.temporal_patch_size / rate)
