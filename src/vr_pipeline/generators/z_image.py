"""Z-Image: rectified flow in one stream of text and image, prompts read by Qwen3 as a user's message.

Source: Z-Image Team 2025, Z-Image: An Efficient Image Generation Foundation Model with Single-Stream Diffusion
Transformer. The network is given the share of the image, 1 - t, and predicts the way to it: the velocity's negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.contract import Condition
from vr_pipeline.generators.image_flow import SHIFTED_LATENTS, ImageFlow, padded
from vr_pipeline.generators.rectified_flow import SIZED_SCHEDULER
from vr_pipeline.generators.settings import PIPELINE, Relied, Settings, of_class, one_of, same_as

if TYPE_CHECKING:
    import torch


def _one(number: int) -> Any:
    return lambda value, _: isinstance(value, list | tuple) and list(value) == [number]


def _lengths(value: Any, _: Settings) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(one, int) for one in value)


class ZImageGenerator(ImageFlow):
    """A ``ZImagePipeline`` of diffusers behind the contract."""

    pipeline_class: ClassVar[str] = "ZImagePipeline"
    noise_dtype: ClassVar[str | None] = "float32"
    padded_together: ClassVar[bool] = True

    relied_on: ClassVar[Relied] = {
        PIPELINE: of_class("ZImagePipeline", "only text-to-image pipelines are read"),
        "transformer": {
            **of_class("ZImageTransformer2DModel", "the denoiser is that of Z-Image"),
            "in_channels": (same_as("vae", "latent_channels"), "the denoiser takes the autoencoder's latents alone"),
            "all_patch_size": (_one(2), "a token is a square of two latent pixels a side"),
            "all_f_patch_size": (_one(1), "an image is one frame"),
            "axes_lens": (_lengths, "there are positions for so many tokens along text, height and width"),
            "siglip_feat_dim": (one_of(None), "text is the only condition; omni models take images beside it"),
            "cap_feat_dim": (same_as("text_encoder", "hidden_size"), "the text encoder has another width"),
        },
        "text_encoder": of_class("Qwen3Model Qwen3ForCausalLM", "prompts are read by Qwen3"),
        "vae": {**of_class("AutoencoderKL", "the autoencoder is that of the family"), **SHIFTED_LATENTS},
        "scheduler": SIZED_SCHEDULER,
    }

    def check_size(self) -> None:
        super().check_size()
        self.check_positions(min(self.denoiser.config["axes_lens"][1:]))  # type: ignore[index]

    def run_pipeline(self, **arguments: Any) -> Any:
        # This pipeline adds the guidance to the prediction instead of weighing two, so that 0 switches it off.
        arguments["guidance_scale"] -= 1.0
        return super().run_pipeline(**arguments)

    def text_limit(self, tokenizer: str) -> int:
        return self.text_length - self.chat_tokens(enable_thinking=True)

    def encoded(self, prompts: list[str]) -> Condition:
        # The pipeline changes the list it is given.
        embeddings, _ = self.pipeline.encode_prompt(
            list(prompts), self.device, do_classifier_free_guidance=False, max_sequence_length=self.text_length
        )
        return padded(embeddings, self.text_length)

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        embeddings = condition["prompt_embeddings"].to(noised.device, self.dtype)
        lengths = condition["prompt_mask"].sum(dim=1).tolist()
        made = self.pipeline.transformer(
            list(noised.to(self.dtype).unsqueeze(2).unbind(dim=0)),
            1.0 - self.noise_share(timesteps),
            [one[:length] for one, length in zip(embeddings, lengths, strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack(list(made)).squeeze(2)
