"""LLaVA-OneVision (Qwen2 language model, SigLIP vision tower)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, PreparedClip, TilingSettings
from vr_pipeline.vlm.frames import CLIP_RESIZERS, RESIZERS, normalise
from vr_pipeline.vlm.tiles import anyres_tiles, anyres_token_count

if TYPE_CHECKING:
    import torch


class LlavaOnevision(Family):
    """Every frame at one size, its patches pooled two by two, one newline token after the last frame.

    An image is shown whole and as tiles of the resolution that fits it best, unpooled; without ``tile_images`` as a
    clip of one frame, which costs a fraction.
    """

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

    @classmethod
    def model_class(cls) -> Any:
        from transformers import LlavaOnevisionForConditionalGeneration

        return LlavaOnevisionForConditionalGeneration

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        return (self.model.config.image_token_id, self.model.config.video_token_id)

    @property
    def language_model(self) -> Any:
        return self.model.model.language_model

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        settings, vision = self.settings, self.model.config.vision_config
        size = vision.image_size
        side = size // vision.patch_size
        if len(frames) == 1 and settings.single_frame_is_image and settings.tile_images:
            placeholder, name = self.model.config.image_token_id, "pixel_values"
            shape = (frames.shape[1], frames.shape[2])
            candidates = [(height, width) for height, width in self.model.config.image_grid_pinpoints]
            most = int(self.model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
            visual = anyres_token_count(shape, side, size, candidates, most)
            shown = anyres_tiles(frames, size, candidates, RESIZERS[settings.resize])
            extra = {"image_sizes": np.array([shape])}
        else:
            placeholder, name = self.model.config.video_token_id, "pixel_values_videos"
            shown = CLIP_RESIZERS[settings.resize](frames, size, size)
            visual, extra = len(frames) * (-(-side // 2)) ** 2 + 1, {}
        pixels = normalise(shown, settings.mean, settings.std).transpose(0, 3, 1, 2)
        token_ids = np.array(
            [*self.text_ids(settings.before_clip), *[placeholder] * visual, *self.text_ids(settings.after_clip)]
        )
        positions = np.arange(len(token_ids))[None]
        return PreparedClip(token_ids, positions, len(token_ids), {name: pixels[None], **extra})

    def vision_features(self, clips: Sequence[PreparedClip]) -> torch.Tensor:
        import torch

        parts = []
        for clip in clips:
            arrays = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in clip.vision.items()}
            if "pixel_values" in arrays:
                output = self.model.get_image_features(
                    arrays["pixel_values"].to(self.device, self.model.dtype), arrays["image_sizes"], return_dict=True
                )
            else:
                pixels = arrays["pixel_values_videos"]
                output = self.model.get_video_features(pixels.to(self.device, self.model.dtype), return_dict=True)
            parts.append(output.pooler_output[0])
        return torch.cat(parts)
