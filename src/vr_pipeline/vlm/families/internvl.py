"""InternVL 2.5 and 3 in their transformers form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, ForTheTower, TilingSettings
from vr_pipeline.vlm.media import Visual
from vr_pipeline.vlm.tiles import grid_tiles

if TYPE_CHECKING:
    import torch


class InternVLSettings(TilingSettings):
    """As for every family, and how far an image is cut."""

    max_tiles: int = Field(12, ge=1, description="Most tiles of an image; the whole image comes on top.")


class InternVL(Family):
    """Every frame is one tile, announced by its number; an image is a grid of tiles and the whole."""

    model_name = "InternVLForConditionalGeneration"
    settings_class = InternVLSettings
    settings: InternVLSettings
    default_settings = InternVLSettings(
        before_clip="<|im_start|>user\n",
        after_clip="",
        after_question=" Answer yes or no.<|im_end|>\n<|im_start|>assistant\n",
        num_frames=16,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )

    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        settings, config = self.settings, self.model.config
        height, width = config.vision_config.image_size
        is_image = self.is_image(frames)
        resize = self.resizer(of_image=is_image)
        tiles = (
            grid_tiles(frames, (height, width), settings.max_tiles, resize)
            if is_image and settings.tile_images
            else resize(frames, height, width)
        )
        tile = [config.image_token_id] * config.image_seq_length
        token_ids: list[int] = []
        for number in range(len(frames)):
            announced, visual = ("", tile * len(tiles)) if is_image else (f"Frame{number + 1}: ", tile)
            token_ids += [*self.text_ids(announced + "<img>"), *visual, *self.text_ids("</img>\n")]
        return self.in_a_row(token_ids, {"pixel_values": self.normalised(tiles)})

    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        import torch

        pixels = torch.from_numpy(np.concatenate([clip.vision["pixel_values"] for clip in clips]))
        output = self.model.get_image_features(pixels.to(self.device, self.model.dtype), return_dict=True)
        features: torch.Tensor = output.pooler_output
        return features.flatten(0, 1)
