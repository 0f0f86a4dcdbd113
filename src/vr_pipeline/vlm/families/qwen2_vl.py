"""Qwen2-VL and Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, ForTheTower, PreparedClip, Settings
from vr_pipeline.vlm.frames import fitting_size, normalise, patchify
from vr_pipeline.vlm.media import Visual, in_a_row
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
    position_axes = 3
    default_settings: Settings = QwenSettings(
        before_clip="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>",
        after_clip="<|vision_end|>",
        after_question=" Answer yes or no.<|im_end|>\n<|im_start|>assistant\n",
        frames_per_second=2.0,
        num_frames=768,
    )

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        return positions

    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        config = self.model.config
        marks = [config.vision_start_token_id], [config.vision_end_token_id]
        return in_a_row([marks[0], self._without_marks(frames, frames_per_second), marks[1]], 3)

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        # The marks around the clip are part of the settings' texts.
        before, after = self.text_ids(self.before_clip), self.text_ids(self.settings.after_clip)
        return self.joined([before, self._without_marks(frames, frames_per_second), after])

    def _without_marks(self, frames: Frames, frames_per_second: float | None) -> Visual:
        config, is_image = self.model.config, self.is_image(frames)
        patches, grid = self.cut(frames)
        placeholder = config.image_token_id if is_image else config.video_token_id
        step = 1.0 if is_image else self._positions_per_time(frames_per_second)
        return self.block(placeholder, grid, step, {"patches": patches, "grid": np.array([grid])})

    def cut(self, frames: Frames) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
        """Return patches of a clip or image, resized and normalised, and the grid (times, rows, columns)."""
        settings, vision, of_image = self.settings, self.model.config.vision_config, self.is_image(frames)
        if settings.height is not None and settings.width is not None:
            size = (settings.height, settings.width)
        else:
            size = self.size(frames, vision.patch_size * vision.spatial_merge_size, of_image=of_image)
        return patchify(
            normalise(self.resizer(of_image=of_image)(frames, *size), settings.mean, settings.std),
            patch=vision.patch_size,
            temporal_patch=vision.temporal_patch_size,
            merge=vision.spatial_merge_size,
        )

    def size(self, frames: Frames, multiple: int, *, of_image: bool) -> tuple[int, int]:
        """Return height and width to which an image or a clip's frames are resized, in multiples of a number."""
        settings = self.settings
        smallest, largest = _IMAGE_PIXELS if of_image else _FRAME_PIXELS
        largest = settings.max_pixels or largest
        smallest = settings.min_pixels or min(smallest, largest)
        if not of_image:
            share = int(_CLIP_TOKENS * multiple**2) * self.model.config.vision_config.temporal_patch_size // len(frames)
            largest = max(min(largest, share), int(1.05 * smallest))
        return fitting_size(*frames.shape[1:3], multiple=multiple, min_pixels=smallest, max_pixels=largest)

    def block(
        self,
        placeholder: int,
        grid: tuple[int, int, int],
        step: float = 1.0,
        vision: dict[str, NDArray[Any]] | None = None,
    ) -> Visual:
        """Return visual tokens of a grid of patches, which merge in space, with positions (time, row, column).

        What follows counts on from one above the highest position on any axis, as these models were trained
        (arXiv 2409.12191, section 2.1, on M-RoPE). transformers 5.23 starts it above rows and columns only, which lies
        inside a clip of Qwen2-VL that is longer in time.
        """
        merge = self.model.config.vision_config.spatial_merge_size
        positions = np.indices((grid[0], grid[1] // merge, grid[2] // merge)).reshape(3, -1)
        positions[0] = (positions[0].astype(np.float32) * np.float32(step)).astype(np.int64)
        token_ids = np.full(positions.shape[1], placeholder)
        return Visual(token_ids, positions, int(positions.max()) + 1, vision or {})

    def _positions_per_time(self, frames_per_second: float | None) -> float:
        """Return by how much the position in time grows from one pair of frames to the next."""
        return 1.0

    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        features: torch.Tensor = self.tower_output(clips).pooler_output
        return features

    def tower_output(self, clips: Sequence[ForTheTower]) -> Any:
        """Return what the vision tower makes of the clips, one after the other."""
        import torch

        patches = torch.from_numpy(np.concatenate([clip.vision["patches"] for clip in clips]))
        grids = torch.from_numpy(self.tower_grids(np.concatenate([clip.vision["grid"] for clip in clips])))
        visual = self.model.model.visual
        return visual(patches.to(self.device, visual.dtype), grid_thw=grids.to(self.device))

    def tower_grids(self, grids: IntArray) -> IntArray:
        """Return grids (times, rows, columns) of clips, [clips, 3], as the vision tower takes them."""
        return grids


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: as Qwen2-VL, with windowed attention in the vision tower and positions in real time."""

    model_name = "Qwen2_5_VLForConditionalGeneration"

    def _positions_per_time(self, frames_per_second: float | None) -> float:
        vision = self.model.config.vision_config
        rate = frames_per_second or self.settings.frames_per_second or 2.0
        return float(np.float32(vision.tokens_per_second) * np.float32(vision.temporal_patch_size / rate))
