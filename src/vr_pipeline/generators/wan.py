"""Wan 2.1 text-to-video: rectified flow.

Source: Wan Team 2025, Wan: Open and Advanced Large-Scale Video Generative Models. With sigma from 0 (data) to 1
(noise), x_sigma = (1 - sigma) x_0 + sigma noise, and the network predicts the velocity noise - x_0 at the time
1000 sigma.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.pipeline import VideoPipelineGenerator

if TYPE_CHECKING:
    import torch


class WanGenerator(VideoPipelineGenerator):
    """A ``WanPipeline`` of diffusers with one transformer (Wan 2.1) behind the contract."""

    pipeline_class: ClassVar[str] = "WanPipeline"
    prediction_type: ClassVar[str] = "flow"
    error_space: ClassVar[str] = "velocity"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    # As the documentation of diffusers advises for this autoencoder.
    autoencoder_dtype: ClassVar[str | None] = "float32"

    @property
    def text_length(self) -> int:
        """Tokens to which every prompt is padded with zeros, as in training of the published models."""
        return 512

    # -- encoding ---------------------------------------------------------------------------------------------------

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        import torch

        latents, config = self.posterior_mode(clips).float().cpu(), self.pipeline.vae.config
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
        deviation = torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
        return (latents - mean) / deviation

    # -- training ---------------------------------------------------------------------------------------------------

    @property
    def shift(self) -> float:
        """How far the schedule leans towards noise; the name differs between schedulers."""
        config = self.pipeline.scheduler.config
        return float(config.get("shift") or config.get("flow_shift") or 1.0)

    def noise_share(self, timesteps: torch.Tensor) -> torch.Tensor:
        return timesteps / self.pipeline.scheduler.config.num_train_timesteps  # type: ignore[no-any-return]

    def _noise_share(self, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """sigma, shaped to multiply latents."""
        return self.noise_share(timesteps.to(like.device, like.dtype)).view((-1,) + (1,) * (like.ndim - 1))

    def draw_timesteps(self, count: int, random: torch.Generator) -> torch.Tensor:
        """Times along the schedule the scheduler samples on: uniform, then shifted as the scheduler shifts its own."""
        import torch

        steps = self.pipeline.scheduler.config.num_train_timesteps
        uniform = torch.randint(1, steps + 1, (count,), generator=random) / steps
        return steps * self.shift * uniform / (1.0 + (self.shift - 1.0) * uniform)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        share = self._noise_share(timesteps, latents)
        return (1.0 - share) * latents + share * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return noise - latents

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.pipeline.transformer(  # type: ignore[no-any-return]
            hidden_states=noised.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=condition["prompt_embeddings"].to(noised.device, self.dtype),
            return_dict=False,
        )[0]
