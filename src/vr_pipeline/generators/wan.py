"""Wan 2.1 and Wan 2.2 TI2V-5B, text-to-video: rectified flow.

Source: Wan Team 2025, Wan: Open and Advanced Large-Scale Video Generative Models. With sigma from 0 (data) to 1
(noise), x_sigma = (1 - sigma) x_0 + sigma noise, and the network predicts the velocity noise - x_0 at the time
1000 sigma.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.pipeline_kinds import VideoPipelineGenerator
from vr_pipeline.generators.rectified_flow import FLOW_SCHEDULERS, NORMALISED_LATENTS, RectifiedFlow
from vr_pipeline.generators.settings import PIPELINE, Relied, Settings, of_class, one_of, same_as

if TYPE_CHECKING:
    import torch

PIXELS_A_TOKEN = 4


def _square_patches(value: Any, settings: Settings) -> bool:
    squares = isinstance(value, list | tuple) and len(value) == 3 and value[0] == 1 and value[1] == value[2] > 0
    # The pipeline gives times to tokens of two latent pixels a side.
    return squares and (value[1] == 2 or not settings[PIPELINE]["expand_timesteps"])


class WanGenerator(RectifiedFlow, VideoPipelineGenerator):
    """A ``WanPipeline`` of diffusers with one transformer (Wan 2.1, Wan 2.2 TI2V-5B) behind the contract."""

    pipeline_class: ClassVar[str] = "WanPipeline"
    frame_axis: ClassVar[int | None] = 2

    relied_on: ClassVar[Relied] = {
        PIPELINE: {
            **of_class("WanPipeline", "only text-to-video pipelines of Wan are read"),
            "transformer_2": (
                one_of(None),
                "there is one transformer for all times; a second transformer, that of Wan 2.2 A14B, is read by the "
                "family wan_experts",
            ),
            "boundary_ratio": (one_of(None), "there is one transformer for all times"),
            "expand_timesteps": (one_of(True, False), "there is one time for all tokens, or one for each"),
        },
        "transformer": {
            **of_class("WanTransformer3DModel", "the denoiser is that of Wan 2.1"),
            "patch_size": (_square_patches, "patches are squares within one latent frame"),
            "in_channels": (
                same_as("vae", "z_dim"),
                "the denoiser takes the autoencoder's latents alone; image-to-video models take an image beside them",
            ),
            "out_channels": (same_as("vae", "z_dim"), "the denoiser predicts the latents alone"),
            "image_dim added_kv_proj_dim pos_embed_seq_len": (one_of(None), "there is no image condition"),
            "text_dim": (same_as("text_encoder", "d_model"), "the text encoder has another width"),
        },
        "text_encoder": of_class("UMT5EncoderModel", "prompts are encoded by UMT5"),
        "vae": {**of_class("AutoencoderKLWan", "the autoencoder is that of Wan"), **NORMALISED_LATENTS},
        "scheduler": FLOW_SCHEDULERS,
    }

    # As the documentation of diffusers advises for this autoencoder.
    autoencoder_dtype: ClassVar[str | None] = "float32"

    def check_size(self) -> None:
        super().check_size()
        self.check_positions(
            int(self.denoiser.config["rope_max_seq_len"]),  # type: ignore[index]
            num_frames=1 + self.parameters.num_frames // self.frame_group,
        )

    @property
    def text_length(self) -> int:
        """Tokens to which every prompt is padded with zeros, as in training of the published models."""
        return 512

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        return self.normalised(self.posterior_mode(clips))

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.predict_by(self.pipeline.transformer, noised, timesteps, condition)

    def predict_by(
        self, network: torch.nn.Module, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition
    ) -> torch.Tensor:
        """Return a transformer's prediction."""
        return network(  # type: ignore[no-any-return]
            **self.network_inputs(noised, timesteps, condition),
            encoder_hidden_states=condition["prompt_embeddings"].to(noised.device, self.dtype),
            return_dict=False,
        )[0]

    def network_inputs(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> dict[str, Any]:
        """Return what a transformer is given beside the prompt."""
        if self.pipeline.config.expand_timesteps:
            # Every token has a time of its own, which is that of all others where no frame is given.
            timesteps = timesteps[:, None].expand(-1, math.prod(noised.shape[2:]) // PIXELS_A_TOKEN)
        return {"hidden_states": noised.to(self.dtype), "timestep": timesteps}
