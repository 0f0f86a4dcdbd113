"""What a family of vision-language models has to say about itself for questions to share a clip's prefix."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.prompts.user_text import control_tokens, user_text_ids
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.frames import CLIP_RESIZERS, RESIZERS, Resize, normalise
from vr_pipeline.vlm.media import Visual, in_a_row
from vr_pipeline.vlm.packing import IntArray

if TYPE_CHECKING:
    import torch

SETTINGS_FILE = "judge.json"


class Settings(Parameters):
    """How clips and questions are put before a model; a family's defaults, changed by judge.json beside the weights."""

    before_clip: str = Field(
        description="Text before the clip; [[prompt]] in it stands for the clip's prompt, and what stands up to there "
        "is read once for all clips of a prompt that are judged together."
    )
    after_clip: str = Field(description="Text after the clip; part of what all questions share.")
    before_question: str = Field("", description="Text between the clip and the question.")
    after_question: str = Field(description="Text after the question; the answer is read after it.")
    num_frames: int | None = Field(None, ge=1, description="Frames taken from a clip, unless the configuration says.")
    frames_per_second: float | None = Field(None, gt=0, description="Rate of the frames taken, in 1/s.")
    height: int | None = Field(None, ge=1, description="Fixed height of frames in pixels; null keeps the aspect.")
    width: int | None = Field(None, ge=1, description="Fixed width of frames in pixels.")
    resize: str = Field("bicubic", pattern="^(bicubic|area)$", description="How frames are resized.")
    min_pixels: int = Field(56 * 56, ge=1, description="Smallest area of a frame where the size is not fixed.")
    max_pixels: int = Field(28 * 28 * 1280, ge=1, description="Largest area of a frame where the size is not fixed.")
    mean: tuple[float, float, float] = Field((0.48145466, 0.4578275, 0.40821073), description="Per channel, of 0-1.")
    std: tuple[float, float, float] = Field((0.26862954, 0.26130258, 0.27577711), description="Per channel, of 0-1.")
    single_frame_is_image: bool = Field(True, description="Whether one frame goes the model's way for images.")
    world: str | None = Field(None, description="What the judge knows, if it is not the world at large; users see it.")


class TilingSettings(Settings):
    """Of families whose own processors cut a large image into tiles."""

    tile_images: bool = Field(
        True,
        description="Whether an image is cut into tiles in high resolution, as the family's own processor does; false "
        "shows it at the size of one frame, which costs a fraction.",
    )


class ForTheTower(Protocol):
    """Whatever carries the pixels of one clip or image."""

    @property
    def vision(self) -> Mapping[str, NDArray[Any]]:
        """What the vision tower wants; arrays with the visual axis first."""


@dataclass(frozen=True)
class PreparedClip:
    """A clip on its way into the model, or text with several.

    Attributes:
        token_ids: of the prefix, with one placeholder token for each visual token, [tokens].
        positions: of the prefix for the language model's rotary embedding, [axes, tokens].
        next_position: where the first token after the prefix stands, on all axes.
        vision: what the vision tower wants of the one clip; arrays with the visual axis first.
        visuals: clips and images in the order of their tokens, where there are several; then ``vision`` is empty.
    """

    token_ids: IntArray
    positions: IntArray
    next_position: int
    vision: dict[str, NDArray[Any]] = field(default_factory=dict)
    visuals: tuple[Visual, ...] = ()

    @property
    def shown(self) -> Sequence[ForTheTower]:
        """What the vision tower reads, in the order of the tokens."""
        return self.visuals or ((self,) if self.vision else ())


class Family(ABC):
    """A model with its tokenizer; torch is needed from here on."""

    model_name: str
    """The model's class in transformers."""
    default_settings: Settings
    settings_class: type[Settings] = Settings
    remote_code: bool = False
    """Whether the modelling code comes with the checkpoint."""

    answers_version: str = ""
    """Part of the identity of answers; changed where the same model is asked in another way than before."""

    recurrent: bool = False
    """Whether some layers keep a running state, so that no mask can keep texts of one row from each other."""

    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Layers of the decoder that a low-rank training changes, unless its settings name others."""

    position_axes: int = 1
    """Axes on which the language model's rotary embedding counts."""

    def __init__(self, model: Any, tokenizer: Any, settings: Settings) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings

    @abstractmethod
    def visual(self, frames: Frames, frames_per_second: float | None) -> Visual:
        """Resize and cut one clip or image, to be put among text and other ones."""

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        """Resize, cut and tokenise one clip, with the settings' text before and after it."""
        before, after = self.text_ids(self.before_clip), self.text_ids(self.settings.after_clip)
        return self.joined([before, self.visual(frames, frames_per_second), after])

    @property
    def before_clip(self) -> str:
        """Text before the clip, behind the prompt if that stands there."""
        return self.settings.before_clip.rpartition(PROMPT_PLACEHOLDER)[2]

    @property
    def prompt_first(self) -> bool:
        """Whether the prompt stands before the clip."""
        return PROMPT_PLACEHOLDER in self.settings.before_clip

    def lead_ids(self, prompt: str) -> tuple[int, ...]:
        """Return the tokens up to the prompt before the clip and those of the prompt; none if it does not stand there.

        Control tokens in the prompt become plain text.
        """
        before, found, _ = self.settings.before_clip.rpartition(PROMPT_PLACEHOLDER)
        return tuple(self.user_text_ids(prompt, before=before)) if found else ()

    def behind(self, text: Sequence[int], clip: PreparedClip) -> PreparedClip:
        """Return a prepared clip behind tokens of text.

        Raises:
            InputError: this family reads no text before its clip.
        """
        return self.joined([text, Visual(clip.token_ids, clip.positions, clip.next_position, clip.vision)])

    def joined(self, pieces: Sequence[Visual | Sequence[int]]) -> PreparedClip:
        """Return text and visuals in a row.

        Args:
            pieces: visuals, and tokens of text. A visual, and the text behind it, stands above all before it.

        Raises:
            InputError: this family cannot read the pieces in this order, or text holds a visual's placeholder.
        """
        self.check_order(pieces)
        row = in_a_row(pieces, self.position_axes)
        visuals = tuple(piece for piece in pieces if isinstance(piece, Visual))
        return PreparedClip(row.token_ids, row.positions, row.span, row.vision, visuals if len(visuals) > 1 else ())

    def check_order(self, pieces: Sequence[Visual | Sequence[int]]) -> None:
        """Raise :class:`InputError` where this family cannot read the pieces of a request in this order."""
        for piece in pieces:
            if not isinstance(piece, Visual) and not set(piece).isdisjoint(self.placeholder_ids):
                raise InputError(
                    "a text holds the token in whose place a clip's frames go",
                    remedy="Take it out of the text; the place of a clip is given by its order among the texts",
                )

    @abstractmethod
    def vision_features(self, clips: Sequence[ForTheTower]) -> torch.Tensor:
        """Return visual tokens of all clips, one after the other: [tokens of all clips, hidden]."""

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        """Tokens in whose place visual tokens go."""
        found = (getattr(self.model.config, f"{kind}_token_id", None) for kind in ("image", "video"))
        return tuple(number for number in found if number is not None)

    @property
    def language_model(self) -> Any:
        """The decoder: takes inputs_embeds, position_ids, attention_mask, past_key_values."""
        return self.model.model.language_model

    def is_image(self, frames: Frames) -> bool:
        """Return whether a clip goes the model's way for images."""
        return len(frames) == 1 and self.settings.single_frame_is_image

    def resizer(self, *, of_image: bool) -> Resize:
        """Return what resizes images, or the frames of clips, as the family's own processors do."""
        return (RESIZERS if of_image else CLIP_RESIZERS)[self.settings.resize]

    def normalised(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return tiles [tiles, height, width, 3] as the vision tower reads them, [tiles, 3, height, width]."""
        return normalise(tiles, self.settings.mean, self.settings.std).transpose(0, 3, 1, 2)

    @staticmethod
    def in_a_row(token_ids: Sequence[int], vision: dict[str, NDArray[Any]]) -> Visual:
        """Return a clip whose tokens, visual ones too, stand one after the other on a single axis."""
        return Visual(np.array(token_ids), np.arange(len(token_ids))[None], len(token_ids), vision)

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """Turn [axes, batch, tokens] into what the decoder takes; here for decoders with one axis."""
        return positions[0]

    def enable_gradient_checkpointing(self) -> None:
        """Have activations recomputed in the backward pass of training."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Compute activations in reduced precision while weights are trained in float32; nothing for float32."""
        import torch

        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype=dtype)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def text_ids(self, text: str) -> list[int]:
        """Return tokens of a piece of text, without the tokenizer's own additions."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    @cached_property
    def control_tokens(self) -> dict[int, str]:
        """Tokens that no user's text may become."""
        return control_tokens(self.tokenizer, self.placeholder_ids)

    def user_text_ids(self, text: str, *, before: str = "", after: str = "") -> list[int]:
        """Return tokens of what a user wrote, between pieces of the template; control tokens in it are plain text."""
        return user_text_ids(self.tokenizer, self.control_tokens, before, text, after)

    def leading_ids(self, text: str) -> list[int]:
        """Return tokens of a text that a word follows: some tokenizers join white space at the end only."""
        word = self.text_ids("A")
        joined = self.text_ids(text + "A")
        return joined[: -len(word)] if joined[-len(word) :] == word else self.text_ids(text)

    def embed_prefixes(self, clips: Sequence[PreparedClip]) -> tuple[torch.Tensor, IntArray]:
        """Return embeddings of the clips' prefixes, padded on the right, [batch, width, hidden], and their lengths."""
        lengths = np.array([len(clip.token_ids) for clip in clips])
        token_ids = np.zeros((len(clips), int(lengths.max())), np.int64)
        visual = np.zeros(token_ids.shape, bool)
        for row, clip in enumerate(clips):
            token_ids[row, : lengths[row]] = clip.token_ids
            visual[row, : lengths[row]] = self.is_visual(clip.token_ids)
        shown = [one for clip in clips for one in clip.shown]
        return self.embed_mixed(token_ids, visual, self.vision_features(shown) if shown else None), lengths

    def is_visual(self, token_ids: IntArray) -> NDArray[np.bool_]:
        """Return which tokens are placeholders of visual ones."""
        return np.isin(token_ids, self.placeholder_ids)

    def embed_mixed(
        self, token_ids: IntArray, visual: NDArray[np.bool_], features: torch.Tensor | None
    ) -> torch.Tensor:
        """Return embeddings of text and visual tokens, [batch, tokens, hidden].

        Args:
            token_ids: [batch, tokens].
            visual: which of them visual tokens take the place of, [batch, tokens].
            features: those visual tokens, row by row, [places, hidden]; None where there are none.
        """
        import torch

        embeddings = self.embed_tokens(token_ids)
        found = 0 if features is None else features.shape[0]
        if int(visual.sum()) != found:
            raise RuntimeError(f"{found} visual tokens for {int(visual.sum())} places")
        if features is None:
            return embeddings
        places = torch.from_numpy(visual).to(embeddings.device)
        return embeddings.masked_scatter(places[..., None], features.to(embeddings.dtype))

    def embed_tokens(self, token_ids: IntArray) -> torch.Tensor:
        """Return embeddings of text tokens [batch, tokens, hidden]."""
        import torch

        embeddings: torch.Tensor = self.model.get_input_embeddings()(torch.from_numpy(token_ids).to(self.device))
        return embeddings

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return scores over the vocabulary, float32, for hidden states [reads, hidden]."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        return logits.float()

    def save(self, folder: Path) -> None:
        """Write weights, tokenizer and settings into a folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_settings(folder, self.settings)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write judge.json."""
    text = json.dumps(settings.model_dump(mode="json"), indent=1, sort_keys=True)
    (folder / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")
