"""CogVLM2 for images, and VisionReward-Image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import ForTheTower, Settings
from vr_pipeline.vlm.families.cogvlm2 import CogVLM2
from vr_pipeline.vlm.frames import check_elongation, resize_bicubic
from vr_pipeline.vlm.media import Visual

if TYPE_CHECKING:
    import torch


class CogVLM2Image(CogVLM2):
    """The image, resized to a square, is visual tokens between two marks.

    Layers send visual tokens through weights of their own, all but the mark behind, as the model's code finds out from
    the types of tokens. The types go with the positions: on the second axis visual tokens stand one higher.
    """

    shown = "image"
    has_experts = True
    position_axes = 2
    default_settings = Settings(before_clip="", after_clip="", before_question="Question: ", after_question=" Answer:")

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        return positions

    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        if len(frames) != 1:
            raise InputError(
                f"this model reads one image, but the clip has {len(frames)} frames",
                remedy="Use family cogvlm2_video for clips, or set num_frames to 1 to judge the first frame",
                field="judge.family",
            )
        check_elongation(*frames.shape[1:3])
        size, visual = self.model.config.vision_config["image_size"], self.tokens_of_frame
        token_ids = np.array([self.tokenizer.bos_token_id, *list(self.placeholder_ids) * visual])
        # The marks stand for themselves; all that is between them shares one position.
        positions = np.array([0, 1, *[2] * (visual - 2), 3])
        types = np.array([0, *[1] * visual])
        pixels = self.normalised(resize_bicubic(frames, size, size))
        return Visual(token_ids, np.stack([positions, positions + types]), 4, {"pixels": pixels})

    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        import torch

        pixels = [torch.from_numpy(clip.vision["pixels"][0]).to(self.device, self.model.dtype) for clip in clips]
        # One by one: an image of 1,344 x 1,344 pixels has 9,216 patches.
        return torch.cat([self.model.model.encode_images([[image]])[0] for image in pixels])
