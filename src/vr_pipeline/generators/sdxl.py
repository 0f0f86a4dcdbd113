"""Stable Diffusion XL: images, prediction of the noise. An image is a clip of one frame.

Source: Podell et al. 2023, SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis. Training is
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise; the schedulers used for sampling scale this by 1 / sqrt(abar_t) and
undo it before the network, so one formula serves all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.pipeline_kinds import DiscreteSchedule
from vr_pipeline.generators.settings import (
    PIPELINE,
    SCALED_LATENTS,
    Relied,
    Settings,
    equal_to,
    of_class,
    one_of,
    same_as,
    whole,
)

if TYPE_CHECKING:
    import torch


_SIZES = 6  # original size, crop, target size: two numbers each


def _text_and_sizes(value: Any, settings: Settings) -> bool:
    size = settings["unet"]["addition_time_embed_dim"]
    return bool(size and value == _SIZES * size + settings["text_encoder_2"]["projection_dim"])


class StableDiffusionXLGenerator(DiscreteSchedule):
    """A ``StableDiffusionXLPipeline`` of diffusers behind the contract."""

    relied_on: ClassVar[Relied] = {
        PIPELINE: of_class("StableDiffusionXLPipeline", "only text-to-image pipelines are read"),
        "unet": {
            **of_class("UNet2DConditionModel", "the denoiser is that of Stable Diffusion XL"),
            "in_channels": (
                same_as("vae", "latent_channels"),
                "the denoiser takes the autoencoder's latents alone; inpainting models take an image beside them",
            ),
            "out_channels": (same_as("vae", "latent_channels"), "the denoiser predicts the noise alone"),
            "addition_embed_type": (one_of("text_time"), "text and sizes are added to the time"),
            "addition_time_embed_dim": (whole, "each size is embedded in so many numbers"),
            "projection_class_embeddings_input_dim": (
                _text_and_sizes,
                "the added conditions are the pooled text and six sizes; refiners have an aesthetic score among them",
            ),
            "cross_attention_dim": (
                equal_to(lambda settings: sum(settings[f"text_encoder{end}"]["hidden_size"] for end in ("", "_2"))),
                "two text encoders of another width are read",
            ),
            "time_cond_proj_dim": (one_of(None), "the guidance is no condition; distilled models (LCM) embed it"),
            "class_embed_type num_class_embeds": (one_of(None), "there are no classes as conditions"),
            "encoder_hid_dim encoder_hid_dim_type": (one_of(None), "text is the only condition of the attention"),
        },
        "text_encoder": of_class("CLIPTextModel", "prompts are encoded by two models of CLIP"),
        "text_encoder_2": of_class("CLIPTextModelWithProjection", "the second text encoder gives the pooled text"),
        "vae": {**of_class("AutoencoderKL", "the autoencoder is that of Stable Diffusion XL"), **SCALED_LATENTS},
        "scheduler": {
            **of_class(
                "DDIMScheduler DDPMScheduler DEISMultistepScheduler DPMSolverMultistepScheduler "
                "DPMSolverSinglestepScheduler EulerAncestralDiscreteScheduler EulerDiscreteScheduler "
                "HeunDiscreteScheduler KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler LMSDiscreteScheduler "
                "PNDMScheduler UniPCMultistepScheduler",
                "the schedule is that of Stable Diffusion: a share of noise for each of the steps of training",
            ),
            "prediction_type": (one_of("epsilon"), "the loss is that of a network that predicts noise"),
            "num_train_timesteps": (whole, "timesteps are drawn from so many"),
            "rescale_betas_zero_snr": (
                one_of(False, None),
                "at the last step of such a schedule the input is noise alone, and a network that predicts noise "
                "learns nothing there",
            ),
            "use_flow_sigmas": (one_of(False, None), "the schedule is no rectified flow's"),
            "timestep_type": (one_of("discrete", None), "the network is given steps, not their noise"),
        },
    }
    pipeline_class: ClassVar[str] = "StableDiffusionXLPipeline"
    component: ClassVar[str] = "unet"
    prediction_type: ClassVar[str] = "noise"
    error_space: ClassVar[str] = "noise"

    # Else there is a watermark in pictures wherever a package for it happens to be installed.
    pipeline_options: ClassVar[dict[str, object]] = {"add_watermarker": False}

    def run_pipeline(self, **arguments: Any) -> Any:
        return self.pipeline(**arguments).images[:, None]

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

    def encoded(self, prompts: list[str]) -> Condition:
        import torch

        size = (self.parameters.height, self.parameters.width)
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        # Original size, crop and target size are conditions of this network; these the pipeline uses while sampling.
        times = torch.tensor([[*size, 0, 0, *size]], dtype=embeddings.dtype)
        return {
            "prompt_embeddings": embeddings,
            "pooled_embeddings": pooled,
            "time_ids": times.repeat(len(prompts), 1),
        }

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
