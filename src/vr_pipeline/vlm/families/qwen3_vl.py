"""Qwen3-VL: the time stands before every pair of frames, and visual features enter early layers of the decoder too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, ForTheTower, PreparedClip, Settings
from vr_pipeline.vlm.families.qwen2_vl import Qwen2VL, QwenSettings
from vr_pipeline.vlm.frames import fitting_size, fitting_size_of_clip
from vr_pipeline.vlm.media import Visual, in_a_row
from vr_pipeline.vlm.packing import IntArray

if TYPE_CHECKING:
    import torch


class TimedFrames(Qwen2VL):
    """Pairs of frames among text that gives their times, in seconds; images have marks around them."""

    answers_version = ""
    image_pixels = (65_536, 16_777_216)
    """Smallest and largest area of an image, in pixels, as published."""
    clip_pixels = (4096, 25_165_824)
    """The same of all frames of a clip together."""
    frame_tokens = 768
    """Visual tokens of a frame, at most."""
    marks = ("<|vision_start|>", "<|vision_end|>")
    """Text before and after an image, and every pair of frames."""

    default_settings: Settings = QwenSettings(
        before_clip="<|im_start|>user\n",
        after_clip="",
        after_question=" Answer yes or no.<|im_end|>\n<|im_start|>assistant\n",
        frames_per_second=2.0,
        num_frames=768,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        return Family.prepare(self, frames, frames_per_second)

    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        is_image = self.is_image(frames)
        patches, grid = self.cut(frames)
        texts, place = [*self.marks], self.placeholder(of_image=is_image)
        if not is_image:
            rate = frames_per_second or self.settings.frames_per_second or 2.0
            texts = self.clip_texts(np.minimum(np.arange(2 * grid[0]), len(frames) - 1) / rate)
        pieces: list[Visual | Sequence[int]] = [self.text_ids(texts[0])]
        for text in texts[1:]:
            pieces += [self.block(place, (1, *grid[1:])), self.text_ids(text)]
        row = in_a_row(pieces, self.position_axes)
        return Visual(row.token_ids, row.positions, row.span, {"patches": patches, "grid": np.array([grid])})

    def clip_texts(self, seconds: np.ndarray) -> list[str]:
        """Return the texts before, between and after pairs of frames at these times."""
        start, end = self.marks
        texts = [f"<{middle:.1f} seconds>{start}" for middle in seconds.reshape(-1, 2).mean(axis=1)]
        return [texts[0], *(end + text for text in texts[1:]), end]

    def placeholder(self, *, of_image: bool) -> int:
        """Return the token in whose place visual tokens go."""
        config = self.model.config
        return int(config.image_token_id if of_image else config.video_token_id)

    def size(self, frames: Frames, multiple: int, *, of_image: bool) -> tuple[int, int]:
        if of_image:
            least, most = self.image_pixels
            smallest, largest = self.settings.min_pixels or least, self.settings.max_pixels or most
            return fitting_size(
                *frames.shape[1:3], multiple=multiple, min_pixels=min(smallest, largest), max_pixels=largest
            )
        return self.size_in_time(len(frames), frames, multiple, self.clip_pixels)

    def size_in_time(self, count: int, frames: Frames, multiple: int, limits: tuple[int, int]) -> tuple[int, int]:
        """Return height and width where the limits are those of so many frames together."""
        settings, count = self.settings, max(count, 2)  # one frame is shown twice
        largest = min(settings.max_pixels or self.frame_tokens * multiple**2, limits[1] // count) * count
        smallest = min(settings.min_pixels * count if settings.min_pixels else limits[0], largest)
        return fitting_size_of_clip(
            count, *frames.shape[1:3], multiple=multiple, min_pixels=smallest, max_pixels=largest
        )


class Qwen3VL(TimedFrames):
    """Qwen3-VL: features of some layers of the vision tower are added behind the first layers of the decoder.

    They travel with the embeddings: a token's row holds its embedding, then what is added behind each layer (zeros for
    text). A hook takes the rows apart when the decoder is called, also by ``generate``.
    """

    model_name = "Qwen3VLForConditionalGeneration"

    def __init__(self, model: Any, tokenizer: Any, settings: Settings) -> None:
        super().__init__(model, tokenizer, settings)
        self.language_model.register_forward_pre_hook(_take_apart, with_kwargs=True)

    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        import torch

        output = self.tower_output(clips)
        return torch.cat([output.pooler_output, *output.deepstack_features], dim=-1)

    def embed_tokens(self, token_ids: IntArray) -> torch.Tensor:
        import torch

        embeddings = super().embed_tokens(token_ids)
        layers = len(self.model.config.vision_config.deepstack_visual_indexes)
        return torch.nn.functional.pad(embeddings, (0, layers * embeddings.shape[-1]))


def _take_apart(decoder: Any, arguments: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Give the decoder the embeddings, and what is added behind its first layers, as its class takes them."""
    rows = given.get("inputs_embeds")
    width = decoder.config.hidden_size
    if rows is None or rows.shape[-1] == width:
        return None
    embeddings, *added = rows.split(width, dim=-1)
    return arguments, given | {
        "inputs_embeds": embeddings,
        "visual_pos_masks": rows.new_ones(rows.shape[:2], dtype=bool),
        "deepstack_visual_embeds": [one.flatten(0, 1) for one in added],
    }
