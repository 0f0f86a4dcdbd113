"""HunyuanVideo 1.5, text-to-video: rectified flow; prompts read by Qwen2.5-VL, and what they quote by ByT5.

Source: Tencent Hunyuan 2025, HunyuanVideo 1.5 Technical Report. The network also takes a first frame with a mask, and
features of an image; from text alone all three are zeros. The pipeline guides by a part of its own, has no callback
for its steps, and has no loader of adapters: ``pipeline.transformer.load_lora_adapter`` reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.config import GeneratorParameters, Offload
from vr_pipeline.generators.contract import Condition, Frames, Part
from vr_pipeline.generators.pipeline_kinds import VideoPipelineGenerator
from vr_pipeline.generators.rectified_flow import FLOW_SCHEDULER, RectifiedFlow
from vr_pipeline.generators.settings import PIPELINE, SCALED_LATENTS, Relied, equal_to, of_class, one_of, same_as, whole

if TYPE_CHECKING:
    import torch

_TEXTS = ("encoder_hidden_states", "encoder_attention_mask", "encoder_hidden_states_2", "encoder_attention_mask_2")


class HunyuanVideoGenerator(RectifiedFlow, VideoPipelineGenerator):
    """A ``HunyuanVideo15Pipeline`` of diffusers behind the contract."""

    pipeline_class: ClassVar[str] = "HunyuanVideo15Pipeline"
    frame_axis: ClassVar[int | None] = 2
    steerable: ClassVar[bool] = False
    noise_dtype: ClassVar[str | None] = None

    relied_on: ClassVar[Relied] = {
        PIPELINE: of_class("HunyuanVideo15Pipeline", "only text-to-video pipelines are read"),
        "transformer": {
            **of_class("HunyuanVideo15Transformer3DModel", "the denoiser is that of HunyuanVideo 1.5"),
            "in_channels": (
                equal_to(lambda settings: 2 * settings["vae"]["latent_channels"] + 1),
                "the denoiser takes latents, a first frame and its mask",
            ),
            "out_channels": (same_as("vae", "latent_channels"), "the denoiser predicts the latents alone"),
            "patch_size patch_size_t": (one_of(1), "every latent pixel is a token"),
            "use_meanflow": (one_of(False, None), "models distilled to a few steps do not predict the velocity"),
            "text_embed_dim": (same_as("text_encoder", "hidden_size"), "the text encoder has another width"),
            "text_embed_2_dim": (same_as("text_encoder_2", "d_model"), "the second text encoder has another width"),
            "image_embed_dim": (whole, "features of an image are of this width"),
        },
        "text_encoder": of_class("Qwen2_5_VLTextModel", "prompts are read by Qwen2.5-VL"),
        "text_encoder_2": of_class("T5EncoderModel", "what prompts quote is read by ByT5"),
        "vae": {
            **of_class("AutoencoderKLHunyuanVideo15", "the autoencoder is that of HunyuanVideo 1.5"),
            **SCALED_LATENTS,
        },
        "scheduler": FLOW_SCHEDULER,
    }

    @classmethod
    def _load_pipeline(cls, parameters: GeneratorParameters, parts: Collection[Part], **components: Any) -> Any:
        if "autoencoder" in parts:
            return super()._load_pipeline(parameters, parts, **components)
        from accelerate import init_empty_weights
        from diffusers import AutoencoderKLHunyuanVideo15

        # The installed pipeline reads sizes from the autoencoder when it is made; a shell without weights suffices.
        with init_empty_weights():
            shell = AutoencoderKLHunyuanVideo15()
        pipeline = super()._load_pipeline(parameters, parts, vae=shell, **components)
        pipeline.vae = None
        return pipeline

    def _place(self, offload: Offload) -> None:
        super()._place(offload)
        if self.pipeline.vae is not None:
            # In the installed diffusers its attention mixes up the clips of a batch.
            self.pipeline.vae.enable_slicing()

    @property
    def text_length(self) -> int:
        """Tokens to which every prompt is padded."""
        return int(self.pipeline.tokenizer_max_length)

    def text_limit(self, tokenizer: str) -> int:
        if tokenizer == "tokenizer_2":
            return sys.maxsize  # it reads what is quoted alone
        pipeline = self.pipeline
        around = self.chat_tokens(before=pipeline.system_message)
        return self.text_length + int(pipeline.prompt_template_encode_start_idx) - around

    def run_pipeline(self, **arguments: Any) -> Any:
        del arguments["callback_on_step_end"]
        self.pipeline.guider = self.pipeline.guider.new(guidance_scale=arguments.pop("guidance_scale"))
        return self.pipeline(num_frames=self.parameters.num_frames, **arguments).frames

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        return (self.posterior_mode(clips) * self.pipeline.vae.config.scaling_factor).float().cpu()

    def encoded(self, prompts: list[str]) -> Condition:
        made = self.pipeline.encode_prompt(prompts, self.device, dtype=self.dtype, batch_size=len(prompts))
        return dict(zip(_TEXTS, made, strict=True))

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        network, latents = self.pipeline.transformer, noised.to(self.dtype)
        frame_and_mask = torch.zeros_like(latents), torch.zeros_like(latents[:, :1])
        tokens = (len(latents), self.pipeline.vision_num_semantic_tokens, network.config.image_embed_dim)
        return network(  # type: ignore[no-any-return]
            hidden_states=torch.cat([latents, *frame_and_mask], dim=1),
            timestep=timesteps.to(self.dtype),
            image_embeds=latents.new_zeros(tokens),
            **{name: condition[name].to(noised.device, self.dtype) for name in _TEXTS},
            return_dict=False,
        )[0]
