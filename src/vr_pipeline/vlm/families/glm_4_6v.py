"""GLM-4.6V."""

from __future__ import annotations

import numpy as np

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Settings
from vr_pipeline.vlm.families.qwen2_vl import QwenSettings
from vr_pipeline.vlm.families.qwen3_vl import TimedFrames
from vr_pipeline.vlm.packing import IntArray


class Glm46V(TimedFrames):
    """Every pair of frames is an image with the time of its first frame behind it; thinking is switched off."""

    model_name = "Glm46VForConditionalGeneration"
    image_pixels = (112 * 112, 28 * 28 * 15_000)
    clip_pixels = (112 * 112, 28 * 28 * 60_000)
    frame_tokens = 60_000
    marks = ("<|begin_of_image|>", "<|end_of_image|>")
    # One matrix makes gate and up-projection.
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj")

    default_settings: Settings = QwenSettings(
        before_clip="[gMASK]<sop><|user|>\n",
        after_clip="",
        after_question=" Answer yes or no./nothink<|assistant|>\n<think></think>\n",
        frames_per_second=6.0,
        num_frames=640,
    )

    def clip_texts(self, seconds: np.ndarray) -> list[str]:
        start, end = self.marks
        texts = [f"{end}{first:.1f} seconds{start}" for first in seconds[::2]]
        texts[-1] = texts[-1].removesuffix(start) + "<|end_of_video|>"
        return [f"<|begin_of_video|>{start}", *texts]

    def placeholder(self, *, of_image: bool) -> int:
        # Clips are shown in the places of images.
        return int(self.model.config.image_token_id)

    def size(self, frames: Frames, multiple: int, *, of_image: bool) -> tuple[int, int]:
        if of_image:
            # An image is a pair of the same frame.
            return self.size_in_time(2, frames, multiple, self.image_pixels)
        return self.size_in_time(len(frames), frames, multiple, self.clip_pixels)

    def tower_grids(self, grids: IntArray) -> IntArray:
        # One per pair of frames, as the class gives them to its tower.
        return np.array([(1, rows, columns) for times, rows, columns in grids for _ in range(times)])
