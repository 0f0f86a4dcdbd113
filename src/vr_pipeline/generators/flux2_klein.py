"""FLUX.2 klein (base models): rectified flow, prompts read by three layers of Qwen3.

Source: Black Forest Labs 2026, FLUX.2 [klein], and its pipeline in diffusers. Latents are gathered two by two into
channels and normalised by the statistics of the autoencoder's batch norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.image_flow import ImageFlow
from vr_pipeline.generators.rectified_flow import SIZED_SCHEDULER
from vr_pipeline.generators.settings import PIPELINE, Relied, equal_to, none_or, of_class, one_of, positive

if TYPE_CHECKING:
    import torch

_LAST_LAYER = 27


_FOUR_LATENTS = equal_to(lambda settings: 4 * settings["vae"]["latent_channels"])


class Flux2KleinGenerator(ImageFlow):
    """A ``Flux2KleinPipeline`` of diffusers behind the contract."""

    pipeline_class: ClassVar[str] = "Flux2KleinPipeline"
    # Attention of the blocks with one stream has one layer for queries, keys, values and the feed-forward.
    lora_targets: ClassVar[tuple[str, ...]] = (*ImageFlow.lora_targets, "to_qkv_mlp_proj")

    relied_on: ClassVar[Relied] = {
        PIPELINE: {
            **of_class("Flux2KleinPipeline", "only pipelines of FLUX.2 klein are read"),
            "is_distilled": (
                one_of(False),
                "models distilled to a few steps do not predict the flow's velocity; their base models do",
            ),
        },
        "transformer": {
            **of_class("Flux2Transformer2DModel", "the denoiser is that of FLUX.2"),
            "in_channels": (_FOUR_LATENTS, "a token is a square of two latent pixels a side"),
            "out_channels": (none_or(_FOUR_LATENTS), "the denoiser predicts the latents alone"),
            "patch_size": (one_of(1), "latents are gathered into channels before the network"),
            "guidance_embeds": (one_of(False), "the guidance is no condition"),
            "joint_attention_dim": (
                equal_to(lambda settings: 3 * settings["text_encoder"]["hidden_size"]),
                "the prompt is read by three layers of the text encoder",
            ),
        },
        "text_encoder": {
            **of_class("Qwen3ForCausalLM", "prompts are read by Qwen3"),
            "num_hidden_layers": (
                lambda value, _: isinstance(value, int) and value >= _LAST_LAYER,
                "the 27th layer of the text encoder is read",
            ),
        },
        "vae": {
            **of_class("AutoencoderKLFlux2", "the autoencoder is that of FLUX.2"),
            "batch_norm_eps": (positive, "latents are normalised by a batch norm"),
        },
        "scheduler": SIZED_SCHEDULER,
    }

    def text_limit(self, tokenizer: str) -> int:
        return self.text_length - self.chat_tokens(enable_thinking=False)

    def grown_shift(self) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return float(compute_empirical_mu(self.tokens, self.parameters.num_inference_steps))

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        vae = self.pipeline.vae
        latents = self.pipeline._patchify_latents(self.posterior_mode(clips, as_images=True)).float().cpu()
        mean, variance = (one.float().cpu().view(1, -1, 1, 1) for one in (vae.bn.running_mean, vae.bn.running_var))
        return (latents - mean) / (variance + vae.config.batch_norm_eps).sqrt()  # type: ignore[no-any-return]

    def encoded(self, prompts: list[str]) -> Condition:
        embeddings, _ = self.pipeline.encode_prompt(prompts, self.device, max_sequence_length=self.text_length)
        return {"prompt_embeddings": embeddings}

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        embeddings = condition["prompt_embeddings"].to(noised.device, self.dtype)
        prediction = self.pipeline.transformer(
            hidden_states=self.pipeline._pack_latents(noised.to(self.dtype)),
            timestep=self.noise_share(timesteps),
            guidance=None,
            encoder_hidden_states=embeddings,
            txt_ids=self.pipeline._prepare_text_ids(embeddings).to(noised.device),
            img_ids=self.pipeline._prepare_latent_ids(noised).to(noised.device),
            return_dict=False,
        )[0]
        return prediction.transpose(1, 2).reshape(noised.shape)  # type: ignore[no-any-return]
