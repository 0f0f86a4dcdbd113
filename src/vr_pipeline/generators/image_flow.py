"""Text-to-image models of rectified flow behind one class. An image is a clip of one frame.

A family adds how its pipeline encodes prompts and how its network is called. Latents are [images, channels, height,
width], as the pipeline draws their first noise; a family that packs them into tokens does so around its network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.rectified_flow import SizedFlow
from vr_pipeline.generators.settings import Wanted, one_of, positive

if TYPE_CHECKING:
    import torch

SHIFTED_LATENTS: Final[dict[str, tuple[Wanted, str]]] = {
    "scaling_factor": (positive, "latents are multiplied by it"),
    "shift_factor": (
        lambda value, _: isinstance(value, int | float) and math.isfinite(value),
        "it is subtracted from latents before",
    ),
    "latents_mean latents_std": (one_of(None), "latents are shifted and scaled by one number each"),
}
"""What families take for granted whose autoencoder's latents are shifted and scaled by one number each."""


class ImageFlow(SizedFlow):
    """A text-to-image pipeline of rectified flow.

    Attributes:
        text_length: tokens of a prompt that the (last) text encoder reads.
        padded_together: prompts are padded to the longest beside them, so that an image would depend on the others.
    """

    noise_dtype: ClassVar[str | None] = None
    text_length: ClassVar[int] = 512
    padded_together: ClassVar[bool] = False

    def check_size(self) -> None:
        super().check_size()
        if self.padded_together and self.parameters.batch_size > 1:
            raise InputError(
                "this model's pipeline pads prompts to the longest of a batch, so that an image would depend on the "
                f"prompts beside it, but a batch_size of {self.parameters.batch_size} is configured",
                field="generator.batch_size",
                remedy="choose 1",
            )

    @cached_property
    def latent_scale(self) -> int:
        """Pixels a side of a latent pixel, from the autoencoder's settings: training does not load it."""
        settings = json.loads((self.folder / "vae" / "config.json").read_text(encoding="utf-8"))
        halvings = settings.get("temperal_downsample") or settings["block_out_channels"][1:]
        return int(2 ** len(halvings))

    @property
    def pixels_a_token(self) -> int:
        return 2 * self.latent_scale

    @property
    def tokens(self) -> int:
        """Tokens of an image of the configured size."""
        return (self.parameters.height // self.pixels_a_token) * (self.parameters.width // self.pixels_a_token)

    def run_pipeline(self, **arguments: Any) -> Any:
        return self.pipeline(max_sequence_length=self.text_length, **arguments).images[:, None]

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        config = self.pipeline.vae.config
        mode = self.posterior_mode(clips, as_images=True)
        return ((mode - config.shift_factor) * config.scaling_factor).float().cpu()


def padded(embeddings: Sequence[torch.Tensor], length: int) -> Condition:
    """Return embeddings of prompts of different lengths, [tokens, width] each, as one tensor and what of it counts."""
    import torch

    whole = embeddings[0].new_zeros(len(embeddings), length, embeddings[0].shape[-1])
    mask = torch.zeros(len(embeddings), length, dtype=torch.long)
    for row, one in enumerate(embeddings):
        whole[row, : len(one)], mask[row, : len(one)] = one, 1
    return {"prompt_embeddings": whole, "prompt_mask": mask}
