"""Stable Diffusion 3 and 3.5: rectified flow, two text encoders of CLIP and one T5.

Source: Esser et al. 2024, Scaling Rectified Flow Transformers for High-Resolution Image Synthesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vr_pipeline.generators.contract import Condition
from vr_pipeline.generators.image_flow import SHIFTED_LATENTS, ImageFlow
from vr_pipeline.generators.rectified_flow import SIZED_SCHEDULER
from vr_pipeline.generators.settings import PIPELINE, Relied, equal_to, of_class, one_of, same_as, whole

if TYPE_CHECKING:
    import torch


class StableDiffusion3Generator(ImageFlow):
    """A ``StableDiffusion3Pipeline`` of diffusers behind the contract."""

    pipeline_class: ClassVar[str] = "StableDiffusion3Pipeline"
    text_length: ClassVar[int] = 256

    relied_on: ClassVar[Relied] = {
        PIPELINE: of_class("StableDiffusion3Pipeline", "only text-to-image pipelines are read"),
        "transformer": {
            **of_class("SD3Transformer2DModel", "the denoiser is that of Stable Diffusion 3"),
            "in_channels": (same_as("vae", "latent_channels"), "the denoiser takes the autoencoder's latents alone"),
            "out_channels": (same_as("vae", "latent_channels"), "the denoiser predicts the latents alone"),
            "patch_size": (one_of(2), "a token is a square of two latent pixels a side"),
            "pos_embed_max_size": (whole, "there are positions for so many tokens a side"),
            "joint_attention_dim": (same_as("text_encoder_3", "d_model"), "the last text encoder has another width"),
            "pooled_projection_dim": (
                equal_to(lambda settings: sum(settings[f"text_encoder{end}"]["projection_dim"] for end in ("", "_2"))),
                "the pooled text is that of two text encoders",
            ),
        },
        "text_encoder": of_class("CLIPTextModelWithProjection", "prompts are encoded by two models of CLIP"),
        "text_encoder_2": of_class("CLIPTextModelWithProjection", "prompts are encoded by two models of CLIP"),
        "text_encoder_3": of_class("T5EncoderModel", "prompts are encoded by T5 too"),
        "vae": {**of_class("AutoencoderKL", "the autoencoder is that of the family"), **SHIFTED_LATENTS},
        "scheduler": SIZED_SCHEDULER,
    }

    def check_size(self) -> None:
        super().check_size()
        self.check_positions(int(self.denoiser.config["pos_embed_max_size"]))  # type: ignore[index]

    def text_limit(self, tokenizer: str) -> int:
        return self.text_length if tokenizer == "tokenizer_3" else super().text_limit(tokenizer)

    def encoded(self, prompts: list[str]) -> Condition:
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_length,
        )
        return {"prompt_embeddings": embeddings, "pooled_embeddings": pooled}

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.pipeline.transformer(  # type: ignore[no-any-return]
            hidden_states=noised.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=condition["prompt_embeddings"].to(noised.device, self.dtype),
            pooled_projections=condition["pooled_embeddings"].to(noised.device, self.dtype),
            return_dict=False,
        )[0]
