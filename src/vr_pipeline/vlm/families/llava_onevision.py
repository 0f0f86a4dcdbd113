"""LLaVA-OneVision (Qwen2 language model, SigLIP vision tower)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, ForTheTower, TilingSettings
from vr_pipeline.vlm.media import Visual
from vr_pipeline.vlm.tiles import anyres_tiles, anyres_token_count

if TYPE_CHECKING:
    import torch


class LlavaOnevision(Family):
    """Every frame at one size, its patches pooled two by two, one newline token after the last frame.

    An image is shown whole and as tiles of the resolution that fits it best, unpooled; without ``tile_images`` as a
    clip of one frame, which costs a fraction.
    """

    model_name = "LlavaOnevisionForConditionalGeneration"
    settings_class = TilingSettings
    settings: TilingSettings
    default_settings = TilingSettings(
        before_clip="<|im_start|>user ",
        after_clip="",
        before_question="\n",
        after_question=" Answer yes or no.<|im_end|><|im_start|>assistant\n",
        num_frames=32,
        height=384,
        width=384,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )

    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        settings, vision = self.settings, self.model.config.vision_config
        size = vision.image_size
        side = size // vision.patch_size
        if self.is_image(frames) and settings.tile_images:
            placeholder, name = self.model.config.image_token_id, "pixel_values"
            shape = (frames.shape[1], frames.shape[2])
            candidates = [(height, width) for height, width in self.model.config.image_grid_pinpoints]
            most = int(self.model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
            visual = anyres_token_count(shape, side, size, candidates, most)
            shown = anyres_tiles(frames, size, candidates, self.resizer(of_image=True))
            extra = {"image_sizes": np.array([shape])}
        else:
            placeholder, name = self.model.config.video_token_id, "pixel_values_videos"
            shown = self.resizer(of_image=False)(frames, size, size)
            visual, extra = len(frames) * (-(-side // 2)) ** 2 + 1, {}
        return self.in_a_row([placeholder] * visual, {name: self.normalised(shown)[None], **extra})

    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        import torch

        parts = []
        for clip in clips:
            arrays = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in clip.vision.items()}
            name = next(name for name in arrays if name.startswith("pixel_values"))
            pixels = arrays[name].to(self.device, self.model.dtype)
            if name == "pixel_values":
                output = self.model.get_image_features(pixels, arrays["image_sizes"], return_dict=True)
            else:
                output = self.model.get_video_features(pixels, return_dict=True)
            parts.append(output.pooler_output[0])
        return torch.cat(parts)
