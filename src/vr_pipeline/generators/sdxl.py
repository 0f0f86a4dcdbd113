"""Stable Diffusion XL: images, prediction of the noise. An image is a clip of one frame.

Source: Podell et al. 2023, SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis. Training is
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise; the schedulers used for sampling scale this by 1 / sqrt(abar_t) and
undo it before the network, so one formula serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.pipeline import PipelineGenerator

if TYPE_CHECKING:
    import torch


class StableDiffusionXLGenerator(PipelineGenerator):
    """A ``StableDiffusionXLPipeline`` of diffusers behind the contract."""

    pipeline_class: ClassVar[str] = "StableDiffusionXLPipeline"
    component: ClassVar[str] = "unet"
    prediction_type: ClassVar[str] = "noise"
    error_space: ClassVar[str] = "noise"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def run_pipeline(self, **arguments: Any) -> Any:
        return self.pipeline(**arguments).images[:, None]

    # -- encoding ---------------------------------------------------------------------------------------------------

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        import torch

        vae = self.pipeline.vae
        # The published autoencoder overflows in half precision and says so in its configuration.
        precise = vae.dtype == torch.float16 and vae.config.force_upcast
        if precise:
            vae.to(dtype=torch.float32)
        latents = self.posterior_mode(clips, as_images=True) * vae.config.scaling_factor
        if precise:
            vae.to(dtype=torch.float16)
        return latents.float().cpu()

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        import torch

        pipeline = self.pipeline
        self.ready(pipeline.text_encoder)
        self.ready(pipeline.text_encoder_2)
        size = (self.parameters.height, self.parameters.width)
        with torch.no_grad():
            embeddings, _, pooled, _ = pipeline.encode_prompt(
                prompt=list(prompts), device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        # Original size, crop and target size are conditions of this network; these the pipeline uses while sampling.
        times = torch.tensor([[*size, 0, 0, *size]], dtype=embeddings.dtype)
        return {
            "prompt_embeddings": embeddings.cpu(),
            "pooled_embeddings": pooled.cpu(),
            "time_ids": times.repeat(len(prompts), 1),
        }

    # -- training ---------------------------------------------------------------------------------------------------

    def draw_timesteps(self, count: int, random: torch.Generator) -> torch.Tensor:
        import torch

        return torch.randint(0, self.pipeline.scheduler.config.num_train_timesteps, (count,), generator=random)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        cumulative = self.pipeline.scheduler.alphas_cumprod.to(latents.device)[timesteps].to(latents.dtype)
        cumulative = cumulative.view((-1,) + (1,) * (latents.ndim - 1))
        return cumulative.sqrt() * latents + (1.0 - cumulative).sqrt() * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return noise

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        placed = {name: value.to(noised.device, self.dtype) for name, value in condition.items()}
        return self.pipeline.unet(  # type: ignore[no-any-return]
            noised.to(self.dtype),
            timesteps,
            encoder_hidden_states=placed["prompt_embeddings"],
            added_cond_kwargs={"text_embeds": placed["pooled_embeddings"], "time_ids": placed["time_ids"]},
            return_dict=False,
        )[0]
