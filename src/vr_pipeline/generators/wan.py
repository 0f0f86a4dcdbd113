"""Wan 2.1 text-to-video: rectified flow.

Source: Wan Team 2025, Wan: Open and Advanced Large-Scale Video Generative Models. With sigma from 0 (data) to 1
(noise), x_sigma = (1 - sigma) x_0 + sigma noise, and the network predicts the velocity noise - x_0 at the time
1000 sigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.pipeline import PipelineGenerator

if TYPE_CHECKING:
    import torch


class WanGenerator(PipelineGenerator):
    """A ``WanPipeline`` of diffusers with one transformer (Wan 2.1) behind the contract."""

    pipeline_class: ClassVar[str] = "WanPipeline"
    prediction_type: ClassVar[str] = "flow"
    error_space: ClassVar[str] = "velocity"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    text_length: ClassVar[int] = 512
    """Tokens to which every prompt is padded with zeros, as in training of the published models."""

    def run_pipeline(self, **arguments: Any) -> Any:
        return self.pipeline(
            num_frames=self.parameters.num_frames, max_sequence_length=self.text_length, **arguments
        ).frames

    # -- encoding ---------------------------------------------------------------------------------------------------

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        import torch

        vae = self.pipeline.vae
        vae.to(self.device)
        with torch.no_grad():
            # The mode, not a sample: latents are cached, and a cached draw would be one frozen noise for ever.
            latents = vae.encode(self.pixels(clips, vae.dtype)).latent_dist.mode().float().cpu()
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        deviation = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
        return (latents - mean) / deviation

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        import torch

        self.pipeline.text_encoder.to(self.device)
        with torch.no_grad():
            embeddings, _ = self.pipeline.encode_prompt(
                list(prompts),
                do_classifier_free_guidance=False,
                max_sequence_length=self.text_length,
                device=self.device,
            )
        return {"prompt_embeddings": embeddings.cpu()}

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
