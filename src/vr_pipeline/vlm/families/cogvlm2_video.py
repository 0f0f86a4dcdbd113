"""CogVLM2-Video and VisionReward-Video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import ForTheTower, Settings
from vr_pipeline.vlm.families.cogvlm2 import CogVLM2
from vr_pipeline.vlm.frames import check_elongation
from vr_pipeline.vlm.media import Visual

if TYPE_CHECKING:
    import torch


class CogVLM2Video(CogVLM2):
    """Every frame is a square of visual tokens between two marks, followed by its number; an image is frame 0."""

    shown = "clip"
    has_experts = False
    default_settings = Settings(
        before_clip="",
        after_clip="",
        before_question="Question: ",
        after_question=" Answer:",
        num_frames=24,
        frames_per_second=1.0,
    )

    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        visual = self.tokens_of_frame
        token_ids, positions = [self.tokenizer.bos_token_id], [0]
        for number in range(len(frames)):
            last = positions[-1]
            token_ids += list(self.placeholder_ids) * visual
            # The marks stand for themselves; all that is between them shares one position.
            positions += [last + 1, *[last + 2] * (visual - 2), last + 3]
            time = self.text_ids(str(number))
            token_ids += time
            positions += range(last + 4, last + 4 + len(time))
        pixels = _short_side_and_centre(frames, self.model.config.vision_config["image_size"], self.settings)
        return Visual(np.array(token_ids), np.array([positions]), positions[-1] + 1, {"pixels": pixels})

    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        import torch

        parts = []
        for clip in clips:
            pixels = torch.from_numpy(clip.vision["pixels"]).to(self.device, self.model.dtype)
            parts.append(self.model.model.encode_images([[pixels]]).flatten(0, 1))
        return torch.cat(parts)


def _short_side_and_centre(frames: Frames, size: int, settings: Settings) -> Any:
    """Normalised pixels, the shorter side scaled to ``size``, the centre kept; float32 [frames, 3, size, size].

    In the published order and without antialiasing, as the model was trained. Frame by frame: a long picture is large
    before its centre is cut out.
    """
    import torch

    height, width = frames.shape[1:3]
    check_elongation(height, width)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (settings.mean, settings.std))
    scaled = (int(height / width * size), size) if width < height else (size, int(width / height * size))
    top, left = round((scaled[0] - size) / 2.0), round((scaled[1] - size) / 2.0)
    centres = []
    for frame in frames:
        values = (torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255.0 - mean) / std
        values = torch.nn.functional.interpolate(values, size=scaled, mode="bilinear", align_corners=False)
        centres.append(values[:, :, top : top + size, left : left + size].clone())
    return torch.cat(centres).numpy()
