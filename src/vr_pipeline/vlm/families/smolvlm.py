"""SmolVLM2 (SmolLM2 language model, SigLIP vision tower)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, ForTheTower, PreparedClip, TilingSettings
from vr_pipeline.vlm.media import Visual
from vr_pipeline.vlm.tiles import split_tiles, squared

if TYPE_CHECKING:
    import torch

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_ONES += ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


class SmolVLMSettings(TilingSettings):
    """As for every family, with the filter of its own processors, and how images differ from frames."""

    resize: str = Field("lanczos", pattern="^(bicubic|area|lanczos)$", description="How frames are resized.")
    image_side_tiles: int = Field(4, ge=1, description="Tiles along the longer side of an image.")


class SmolVLM(Family):
    """Every frame is one square tile, announced by its time; an image is a grid of tiles and the whole."""

    model_name = "SmolVLMForConditionalGeneration"
    settings_class = SmolVLMSettings
    settings: SmolVLMSettings
    default_settings = SmolVLMSettings(
        before_clip="<|im_start|>User:",
        after_clip="",
        after_question=" Answer yes or no.<end_of_utterance>\nAssistant:",
        frames_per_second=1.0,
        num_frames=64,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )

    @property
    def language_model(self) -> Any:
        return self.model.model.text_model

    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        return self._within(frames, frames_per_second, "", "")

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        # Tokenised in one piece with the words around the frames.
        texts = (self.before_clip, self.settings.after_clip)
        return self.joined([self._within(frames, frames_per_second, *texts)])

    def _within(self, frames: Frames, frames_per_second: float | None, before: str, after: str) -> Visual:
        """Return a clip with a template's texts before and after it."""
        settings = self.settings
        tile = self.model.config.vision_config.image_size
        if self.is_image(frames):
            shown, texts = self._image(frames, tile)
        else:
            shown = squared(frames, tile, tile, self.resizer(of_image=False))
            texts = _announcements(len(frames), frames_per_second or settings.frames_per_second or 1.0)
        texts[0], texts[-1] = before + texts[0], texts[-1] + after
        return self.in_a_row(self._token_ids(texts), {"pixel_values": self.normalised(shown)[None]})

    def _image(self, frames: Frames, tile: int) -> tuple[Any, list[str]]:
        """Return tiles of an image and the texts around them."""
        settings = self.settings
        resize = self.resizer(of_image=True)
        longest = tile * settings.image_side_tiles
        if not settings.tile_images:
            shown, rows, columns = squared(frames, longest, tile, resize), 0, 0
        else:
            shown, rows, columns = split_tiles(frames, tile, longest, resize)
        around = "<fake_token_around_image>"
        texts: list[str] = []
        for row in range(rows):
            for column in range(columns):
                # A row ends with a newline, which stands before what begins the next.
                newline = "\n" if row and not column else ""
                texts.append(f"{newline}{around}<row_{row + 1}_col_{column + 1}>")
        texts.append(("\n\n" if rows else "") + f"{around}<global-img>")
        return shown, [*texts, around]

    def _token_ids(self, texts: Sequence[str]) -> list[int]:
        """Return tokens of the texts, with the places of a tile between each and the next."""
        places = [self.model.config.image_token_id] * self.model.model.image_seq_len
        token_ids = self.text_ids(texts[0])
        for text in texts[1:-1]:
            token_ids += [*places, *self.text_ids(text)]
        # A question follows: what it begins with does not join what stands before it.
        return [*token_ids, *places, *self.leading_ids(texts[-1])]

    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        import torch

        pixels = torch.from_numpy(np.concatenate([clip.vision["pixel_values"] for clip in clips], axis=1))
        output = self.model.get_image_features(pixels.to(self.device, self.model.dtype), return_dict=True)
        return torch.cat(list(output.pooler_output))


def _announcements(count: int, rate: float) -> list[str]:
    """Texts before, between and after the frames of a clip, in the words the model was trained on."""
    around = "<fake_token_around_image>"
    length = timedelta(seconds=int(count / rate))
    texts = [
        f" You are provided the following series of {number_words(count)} frames from a {length} [H:MM:SS] video.\n"
    ]
    for number in range(count):
        seconds = int(number / rate)
        texts[-1] += f"\nFrame from {seconds // 60:02d}:{seconds % 60:02d}:{around}<global-img>"
        texts.append(around)
    texts[-1] += "\n\n"
    return texts


def number_words(number: int) -> str:
    """Return an integer from 0 to 9999 in English words: 124 is 'one hundred and twenty-four'."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        rest = number % 10
        return _TENS[number // 10 - 2] + (f"-{_ONES[rest]}" if rest else "")
    if number < 1000:
        rest = number % 100
        return f"{_ONES[number // 100]} hundred" + (f" and {number_words(rest)}" if rest else "")
    rest = number % 1000
    joint = " and " if rest < 100 else ", "
    return f"{number_words(number // 1000)} thousand" + (f"{joint}{number_words(rest)}" if rest else "")
