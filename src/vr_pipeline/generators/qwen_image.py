"""Qwen-Image: rectified flow, prompts read by Qwen2.5-VL within a fixed instruction.

Source: Qwen Team 2025, Qwen-Image Technical Report. The pipeline guides with a negative prompt of one space and keeps
the norm of the conditional prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.image_flow import ImageFlow, padded
from vr_pipeline.generators.rectified_flow import NORMALISED_LATENTS, SIZED_SCHEDULER
from vr_pipeline.generators.settings import PIPELINE, Relied, equal_to, of_class, one_of, same_as

if TYPE_CHECKING:
    import torch


class QwenImageGenerator(ImageFlow):
    """A ``QwenImagePipeline`` of diffusers behind the contract."""

    pipeline_class: ClassVar[str] = "QwenImagePipeline"
    padded_together: ClassVar[bool] = True

    relied_on: ClassVar[Relied] = {
        PIPELINE: of_class("QwenImagePipeline", "only text-to-image pipelines are read"),
        "transformer": {
            **of_class("QwenImageTransformer2DModel", "the denoiser is that of Qwen-Image"),
            "in_channels": (
                equal_to(lambda settings: 4 * settings["vae"]["z_dim"]),
                "a token is a square of two latent pixels a side",
            ),
            "out_channels": (same_as("vae", "z_dim"), "the denoiser predicts the latents alone"),
            "patch_size": (one_of(2), "a token is a square of two latent pixels a side"),
            "guidance_embeds": (one_of(False), "the guidance is no condition"),
            "zero_cond_t use_additional_t_cond use_layer3d_rope": (
                one_of(False, None),
                "there is one image, the one that is made; editing and layered models have more",
            ),
            "joint_attention_dim": (
                equal_to(lambda settings: settings["text_encoder"]["text_config"]["hidden_size"]),
                "the text encoder has another width",
            ),
        },
        "text_encoder": of_class("Qwen2_5_VLForConditionalGeneration", "prompts are read by Qwen2.5-VL"),
        "vae": {**of_class("AutoencoderKLQwenImage", "the autoencoder is that of Qwen-Image"), **NORMALISED_LATENTS},
        "scheduler": SIZED_SCHEDULER,
    }

    def run_pipeline(self, **arguments: Any) -> Any:
        scale = arguments.pop("guidance_scale")
        guided = {"negative_prompt": [" "] * len(arguments["prompt"])} if scale > 1 else {}
        return super().run_pipeline(true_cfg_scale=scale, **guided, **arguments)

    def text_limit(self, tokenizer: str) -> int:
        """Return the tokens that are left of the text encoder's when the end of the instruction is read."""
        pipeline = self.pipeline
        around, none = (
            len(pipeline.tokenizer(text)["input_ids"]) for text in (pipeline.prompt_template_encode.format(""), "")
        )
        return self.text_length + int(pipeline.prompt_template_encode_start_idx) - (around - none)

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        return self.normalised(self.posterior_mode(clips))[:, :, 0]

    def encoded(self, prompts: list[str]) -> Condition:
        one_by_one = [
            self.pipeline.encode_prompt(prompt, device=self.device, max_sequence_length=self.text_length)[0][0]
            for prompt in prompts
        ]
        return padded(one_by_one, self.text_length)

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        size, mask = noised.shape, condition["prompt_mask"].to(noised.device)
        longest = int(mask.sum(dim=1).max())
        mask = mask[:, :longest]
        prediction = self.pipeline.transformer(
            hidden_states=self.pipeline._pack_latents(noised.to(self.dtype), *size),
            timestep=self.noise_share(timesteps),
            encoder_hidden_states=condition["prompt_embeddings"][:, :longest].to(noised.device, self.dtype),
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, size[2] // 2, size[3] // 2)]] * size[0],
            return_dict=False,
        )[0]
        return self.pipeline._unpack_latents(prediction, size[2], size[3], 1)[:, :, 0]  # type: ignore[no-any-return]
