"""CogVideoX (2B, 5B, 1.5-5B): v-prediction with a shifted, zero-terminal-SNR schedule.

Source: Yang et al., CogVideoX: Text-to-Video Diffusion Models with An Expert Transformer; noise schedule as in the
configuration of the published schedulers. The velocity is v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans and
Ho 2022), and the network predicts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.pipeline_kinds import DiscreteSchedule, VideoPipelineGenerator
from vr_pipeline.generators.settings import PIPELINE, SCALED_LATENTS, Relied, of_class, one_of, same_as, whole

if TYPE_CHECKING:
    import torch


_OFFSET = 2.0
"""The condition 'ofs' of CogVideoX 1.5 from an image, which its pipeline always gives."""

NETWORK_AND_SCHEDULE: Final[Relied] = {
    PIPELINE: of_class("CogVideoXPipeline", "only text-to-video pipelines of CogVideoX are read"),
    "transformer": {
        **of_class("CogVideoXTransformer3DModel", "the denoiser is that of CogVideoX"),
        "patch_size_t": (one_of(None, 2), "patches hold one latent frame or, those of CogVideoX 1.5, two"),
        "patch_size": (whole, "patches are squares of latent pixels"),
        "ofs_embed_dim": (one_of(None), "the condition 'ofs' of image-to-video models is not given"),
        "in_channels": (
            same_as("vae", "latent_channels"),
            "the denoiser takes the autoencoder's latents alone; image-to-video models take an image beside them",
        ),
        "out_channels": (same_as("vae", "latent_channels"), "the denoiser predicts latents alone"),
        "use_learned_positional_embeddings": (
            one_of(False),
            "positions are computed; learned ones, those of image-to-video models, are not supported",
        ),
        "max_text_seq_length": (whole, "prompts are padded to this length"),
        "temporal_compression_ratio": (
            same_as("vae", "temporal_compression_ratio"),
            "the denoiser counts latent frames as the autoencoder makes them",
        ),
        "text_embed_dim": (same_as("text_encoder", "d_model"), "the text encoder has another width"),
    },
    "text_encoder": of_class("T5EncoderModel", "prompts are encoded by T5"),
    "scheduler": {
        **of_class(
            "CogVideoXDDIMScheduler CogVideoXDPMScheduler",
            "the schedule is that of CogVideoX, whose signal-to-noise ratio is shifted",
        ),
        "prediction_type": (one_of("v_prediction"), "the loss is that of a network that predicts velocities"),
        "num_train_timesteps": (whole, "timesteps are drawn from so many"),
    },
    "vae": {
        "scaling_factor": SCALED_LATENTS["scaling_factor"],
        "temporal_compression_ratio": (whole, "it gives the number of latent frames"),
    },
}
"""What is taken for granted of every CogVideoX, whatever its autoencoder."""


class CogVideoXGenerator(DiscreteSchedule, VideoPipelineGenerator):
    """A ``CogVideoXPipeline`` of diffusers behind the contract."""

    relied_on: ClassVar[Relied] = NETWORK_AND_SCHEDULE | {
        "vae": NETWORK_AND_SCHEDULE["vae"]
        | SCALED_LATENTS
        | of_class("AutoencoderKLCogVideoX", "the autoencoder is that of CogVideoX")
    }
    pipeline_class: ClassVar[str] = "CogVideoXPipeline"
    prediction_type: ClassVar[str] = "velocity"
    error_space: ClassVar[str] = "velocity"
    frame_axis: ClassVar[int | None] = 1

    def check_size(self) -> None:
        super().check_size()
        config = self._denoiser_config
        if config.get("patch_size_t"):
            # Rotary positions are cut out of those of the largest clip instead of being stretched.
            self.check_positions(min(config["sample_height"], config["sample_width"]) // config["patch_size"])

    @property
    def frame_group(self) -> int:
        """Latent frames are decoded two by two, and only the first of an odd number stands for one frame."""
        return super().frame_group * int(self.pipeline.vae.num_latent_frames_batch_size)

    @property
    def leading_copies(self) -> int:
        whole = (self.parameters.num_frames - 1) // int(self.pipeline.vae_scale_factor_temporal) + 1
        return -whole % int(self._denoiser_config.get("patch_size_t") or 1)

    @property
    def text_length(self) -> int:
        """Tokens to which every prompt is padded; the joint attention has positions for exactly as many."""
        return int(self._denoiser_config["max_text_seq_length"])

    @cached_property
    def _denoiser_config(self) -> Mapping[str, Any]:
        if self.pipeline.transformer is not None:
            return dict(self.pipeline.transformer.config)
        from diffusers import CogVideoXTransformer3DModel

        return CogVideoXTransformer3DModel.load_config(self.folder, subfolder=self.component)  # type: ignore[no-any-return]

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        import torch

        latents = self.posterior_mode(clips) * self.pipeline.vae.config.scaling_factor
        latents = latents.permute(0, 2, 1, 3, 4).float().cpu()
        # CogVideoX 1.5 was trained with copies of the first latent frame before an odd number; decoding drops them.
        return torch.cat([latents[:, :1].expand(-1, self.leading_copies, -1, -1, -1), latents], dim=1)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        signal, deviation = self.signal_and_noise(timesteps, latents)
        return signal * noise - deviation * latents

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        transformer = self.pipeline.transformer
        rotary = None
        if transformer.config.use_rotary_positional_embeddings:
            factor = self.pipeline.vae_scale_factor_spatial
            rotary = self.pipeline._prepare_rotary_positional_embeddings(
                noised.shape[3] * factor, noised.shape[4] * factor, noised.shape[1], noised.device
            )
        return transformer(  # type: ignore[no-any-return]
            hidden_states=noised.to(self.dtype),
            encoder_hidden_states=condition["prompt_embeddings"].to(noised.device, self.dtype),
            timestep=timesteps,
            ofs=None if transformer.config.ofs_embed_dim is None else noised.new_full((1,), _OFFSET),
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
