"""LTX-2 (2.0 and 2.3), text-to-video with sound, of which the video stream is trained: rectified flow.

Source: HaCohen et al. 2026, LTX-2: Efficient Joint Audio-Visual Foundation Model. One network denoises video and sound,
which attend to each other. Sampling is joint, guided by the text alone, and drops the sound. Clips in training are
silent: the network runs without the attention between both, as the authors train video alone, and the audio stream gets
neither adapters nor gradients.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Frames, Part
from vr_pipeline.generators.pipeline_kinds import VideoPipelineGenerator
from vr_pipeline.generators.rectified_flow import SIZED_SCHEDULER, SizedFlow
from vr_pipeline.generators.settings import PIPELINE, Relied, of_class, one_of, positive, same_as

if TYPE_CHECKING:
    import torch

_FRAME_RATE: Final = 24
_OF_SOUND: Final = re.compile("audio|a2v|av_cross")
_GUIDED_BY_TEXT_ALONE: Final[dict[str, float | None]] = {
    **{"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0},
    # None is the value for the video.
    **dict.fromkeys(("audio_guidance_scale", "audio_stg_scale", "audio_modality_scale", "audio_guidance_rescale")),
}


class LTX2Generator(SizedFlow, VideoPipelineGenerator):
    """An ``LTX2Pipeline`` of diffusers behind the contract, without its sound."""

    pipeline_class: ClassVar[str] = "LTX2Pipeline"
    frame_axis: ClassVar[int | None] = 2
    steerable: ClassVar[bool] = False
    lora_targets: ClassVar[tuple[str, ...]] = tuple(
        f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in VideoPipelineGenerator.lora_targets
    )

    relied_on: ClassVar[Relied] = {
        PIPELINE: of_class("LTX2Pipeline", "only text-to-video pipelines are read"),
        "transformer": {
            **of_class("LTX2VideoTransformer3DModel", "the denoiser is that of LTX-2"),
            "in_channels out_channels": (same_as("vae", "latent_channels"), "the denoiser takes and predicts latents"),
            "patch_size patch_size_t": (one_of(1), "every latent pixel is a token"),
            "use_keyframes_abs_pos_embedding": (one_of(False, None), "no frames are given"),
        },
        "text_encoder": of_class("Gemma3ForConditionalGeneration", "prompts are read by Gemma 3"),
        "connectors": of_class("LTX2TextConnectors", "what Gemma reads is handed on by connectors"),
        "vae": {
            **of_class("AutoencoderKLLTX2Video", "the autoencoder is that of LTX-2"),
            "spatial_compression_ratio": (one_of(32), "sizes are multiples of it"),
            "temporal_compression_ratio": (one_of(8), "lengths are 1 + multiples of it"),
            "timestep_conditioning": (one_of(False), "latents are decoded without further noise"),
            "scaling_factor": (positive, "latents are multiplied by it"),
        },
        "audio_vae": of_class("AutoencoderKLLTX2Audio", "the audio autoencoder is that of LTX-2"),
        "vocoder": of_class("LTX2Vocoder LTX2VocoderWithBWE", "the vocoder is that of LTX-2"),
        "scheduler": SIZED_SCHEDULER,
    }

    @classmethod
    def _component_names(cls, part: Part) -> tuple[str, ...]:
        further = {"autoencoder": ("audio_vae", "vocoder"), "text_encoder": ("connectors",)}
        return super()._component_names(part) + further.get(part, ())

    def check_size(self) -> None:
        super().check_size()
        if self.parameters.fps != _FRAME_RATE:
            raise InputError(
                f"this model samples at {_FRAME_RATE} frames a second, but {self.parameters.fps:g} is configured",
                field="generator.fps",
                remedy=f"set it to {_FRAME_RATE}",
            )

    frame_group, pixels_a_token, text_length = 8, 32, 1024  # type: ignore[assignment]

    @property
    def tokens(self) -> int:
        size = self.parameters
        return (1 + size.num_frames // 8) * (size.height // 32) * (size.width // 32)

    def run_pipeline(self, **arguments: Any) -> Any:
        return super().run_pipeline(frame_rate=float(_FRAME_RATE), **_GUIDED_BY_TEXT_ALONE, **arguments)

    def plain(self, prompts: Sequence[str]) -> list[str]:
        return super().plain([prompt.strip() for prompt in prompts])  # as the pipeline does

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        mode, vae = self.posterior_mode(clips).float(), self.pipeline.vae
        scaled = self.pipeline._normalize_latents(mode, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
        return scaled.cpu()  # type: ignore[no-any-return]

    def encoded(self, prompts: list[str]) -> Condition:
        pipeline, connectors = self.pipeline, self.ready(self.pipeline.connectors)
        settings = {"max_sequence_length": self.text_length, "device": self.device}
        read, mask, _, _ = pipeline.encode_prompt(prompts, None, False, **settings)
        of_video, _, mask = connectors(read, mask, padding_side=pipeline.tokenizer.padding_side)
        return {"prompt_embeddings": of_video, "prompt_mask": mask}

    def add_adapter(self, **settings: Any) -> list[Any]:
        weights = super().add_adapter(**settings)
        if heard := [name for name, _ in self._trained() if _OF_SOUND.search(name)]:
            self.load_policy(None)
            raise InputError(
                f"the adapter's targets match '{heard[0].partition('.lora_')[0]}' of the audio stream, which is frozen",
                field="adapter.targets",
                remedy="name layers of the video stream, such as attn1.to_q, or leave the field out",
            )
        return weights

    def train_all_weights(self, *, reference: bool) -> list[Any]:
        super().train_all_weights(reference=reference)
        for name, value in self.denoiser.named_parameters():
            value.requires_grad_(not _OF_SOUND.search(name))
        return [value for _, value in self._trained()]

    def _trained(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in sorted(self.denoiser.named_parameters()) if value.requires_grad]

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        network, size = self.pipeline.transformer, noised.shape[2:]
        config = network.config
        width = config.caption_channels if config.use_prompt_embeddings else config.audio_cross_attention_dim
        text = condition["prompt_embeddings"].to(noised.device, self.dtype)
        prediction, _ = network(
            hidden_states=self.pipeline._pack_latents(noised.to(self.dtype)),
            encoder_hidden_states=text,
            encoder_attention_mask=condition["prompt_mask"].to(noised.device),
            timestep=timesteps,
            sigma=timesteps,
            **dict(zip(("num_frames", "height", "width"), size, strict=True)),
            fps=float(_FRAME_RATE),
            # The audio stream runs beside, on one token of silence, and nothing of it reaches the video.
            isolate_modalities=True,
            audio_hidden_states=text.new_zeros(len(text), 1, config.audio_in_channels),
            audio_encoder_hidden_states=text.new_zeros(len(text), 1, width),
            audio_num_frames=1,
            return_dict=False,
        )
        return self.pipeline._unpack_latents(prediction, *size)  # type: ignore[no-any-return]
