"""LLaVA-OneVision (Qwen2 language model, SigLIP vision tower)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_pipeline.judges.families.base import Family, PreparedClip, Settings
from vr_pipeline.judges.frames import normalise, resize_area, resize_bicubic
from vr_pipeline.video.read import Frames

if TYPE_CHECKING:
    import torch


class LlavaOnevision(Family):
    """Every frame at one size, its patches pooled two by two, one newline token after the last frame.

    An image goes the same way as a clip of one frame; the model's tiling of images in high resolution is not used, so
    that images and clips cost alike.
    """

    default_settings = Settings(
        before_clip="<|im_start|>user ",
        after_clip="",
        before_question="\n",
        after_question=" Answer yes or no.<|im_end|><|im_start|>assistant\n",
        num_frames=32,
        height=384,
        width=384,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        single_frame_is_image=False,
    )

    @classmethod
    def model_class(cls) -> Any:
        from transformers import LlavaOnevisionForConditionalGeneration

        return LlavaOnevisionForConditionalGeneration

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        return (self.model.config.video_token_id,)

    @property
    def language_model(self) -> Any:
        return self.model.model.language_model

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        settings, vision = self.settings, self.model.config.vision_config
        size = vision.image_size
        resized = (resize_area if settings.resize == "area" else resize_bicubic)(frames, size, size)
        pixels = normalise(resized, settings.mean, settings.std).transpose(0, 3, 1, 2)
        side = -(-(size // vision.patch_size) // 2)
        visual = len(frames) * side * side + 1
        token_ids = np.array(
            [
                *self.text_ids(settings.before_clip),
                *[self.placeholder_ids[0]] * visual,
                *self.text_ids(settings.after_clip),
            ]
        )
        positions = np.arange(len(token_ids))[None]
        return PreparedClip(token_ids, positions, len(token_ids), {"pixel_values_videos": pixels[None]})

    def vision_features(self, clips: Sequence[PreparedClip]) -> torch.Tensor:
        import torch

        parts = []
        for clip in clips:
            pixels = torch.from_numpy(np.ascontiguousarray(clip.vision["pixel_values_videos"]))
            output = self.model.get_video_features(pixels.to(self.device, self.model.dtype), return_dict=True)
            parts.append(output.pooler_output[0])
        return torch.cat(parts)
