"""CogVideoX (2B, 5B and tiny models of the same classes): v-prediction with a shifted, zero-terminal-SNR schedule.

Source: Yang et al., CogVideoX: Text-to-Video Diffusion Models with An Expert Transformer; noise schedule as in the
configuration of the published schedulers. The velocity is v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans and
Ho 2022), and the network predicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import (
    Adapter,
    Condition,
    Frames,
    Generator,
    batches,
    resolve_device,
    sampling_identity,
    weights_identity,
)

if TYPE_CHECKING:
    import torch


class CogVideoXGenerator(Generator):
    """A ``CogVideoXPipeline`` of diffusers behind the contract."""

    prediction_type: ClassVar[str] = "velocity"
    error_space: ClassVar[str] = "velocity"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, pipeline: Any, parameters: GeneratorParameters, identity: str) -> None:
        import torch

        if parameters.threads is not None:
            torch.set_num_threads(parameters.threads)
        self.pipeline = pipeline
        self.parameters = parameters
        self.device = torch.device(resolve_device(parameters.device))
        if parameters.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif parameters.offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=self.device)
        else:
            pipeline.to(self.device)
        pipeline.set_progress_bar_config(disable=True)
        # Asked of the model once: it answers by walking through all of its modules.
        self.dtype: torch.dtype = pipeline.transformer.dtype
        self.text_length: int = pipeline.transformer.config.max_text_seq_length
        self.weights_identity = identity
        self.identity = sampling_identity(parameters, identity)

    @classmethod
    def load(cls, parameters: GeneratorParameters) -> CogVideoXGenerator:
        """Load from a folder in diffusers layout or from the hub; safetensors only."""
        import torch
        from diffusers import CogVideoXPipeline

        identity = weights_identity(parameters)
        pipeline = CogVideoXPipeline.from_pretrained(
            parameters.path,
            revision=parameters.revision,
            dtype=getattr(torch, parameters.dtype),
            use_safetensors=True,
            **cls.own_components(Path(parameters.path)),
        )
        return cls(pipeline, parameters, identity)

    @classmethod
    def own_components(cls, folder: Path) -> dict[str, Any]:
        """Parts of the pipeline whose classes are not in diffusers; none for the published models."""
        return {}

    @property
    def denoiser(self) -> torch.nn.Module:
        return self.pipeline.transformer  # type: ignore[no-any-return]

    # -- sampling ---------------------------------------------------------------------------------------------------

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> Frames:
        import torch

        size = self.parameters.batch_size
        made: list[Frames] = []
        for part in batches(len(prompts), size):
            real = len(prompts[part])
            padded_prompts = [*prompts[part], *[prompts[part][-1]] * (size - real)]
            padded_seeds = [*seeds[part], *[seeds[part][-1]] * (size - real)]
            clips = self.pipeline(
                prompt=padded_prompts,
                height=self.parameters.height,
                width=self.parameters.width,
                num_frames=self.parameters.num_frames,
                num_inference_steps=self.parameters.num_inference_steps,
                guidance_scale=self.parameters.guidance_scale,
                # Noise is drawn on the CPU, so that a seed means the same clip on every device.
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in padded_seeds],
                max_sequence_length=self.text_length,
                output_type="np",
            ).frames[:real]
            made.append(np.round(np.clip(clips, 0.0, 1.0) * 255.0).astype(np.uint8))
        return np.concatenate(made)

    # -- encoding ---------------------------------------------------------------------------------------------------

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        import torch

        vae = self.pipeline.vae
        vae.to(self.device)
        pixels = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3)
        pixels = (pixels.to(self.device, torch.float32) / 127.5 - 1.0).to(vae.dtype)
        with torch.no_grad():
            # The mode, not a sample: latents are cached, and a cached draw would be one frozen noise for ever.
            latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
        return latents.permute(0, 2, 1, 3, 4).float().cpu()

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

    def _signal_and_noise(self, timesteps: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), shaped to multiply latents."""
        cumulative = self.pipeline.scheduler.alphas_cumprod.to(like.device)[timesteps].to(like.dtype)
        shape = (-1,) + (1,) * (like.ndim - 1)
        return cumulative.sqrt().view(shape), (1.0 - cumulative).sqrt().view(shape)

    def draw_timesteps(self, count: int, random: torch.Generator) -> torch.Tensor:
        import torch

        return torch.randint(0, self.pipeline.scheduler.config.num_train_timesteps, (count,), generator=random)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        signal, deviation = self._signal_and_noise(timesteps, latents)
        return signal * latents + deviation * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        signal, deviation = self._signal_and_noise(timesteps, latents)
        return signal * noise - deviation * latents

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        transformer = self.pipeline.transformer
        rotary = None
        if transformer.config.use_rotary_positional_embeddings:
            factor = self.pipeline.vae_scale_factor_spatial
            rotary = self.pipeline._prepare_rotary_positional_embeddings(
                noised.shape[3] * factor, noised.shape[4] * factor, noised.shape[1], noised.device
            )
        return transformer(  # type: ignore[no-any-return]
            hidden_states=noised.to(self.dtype),
            encoder_hidden_states=condition["prompt_embeddings"].to(noised.device, self.dtype),
            timestep=timesteps,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]

    # -- adapters ---------------------------------------------------------------------------------------------------

    def adapter(self) -> Adapter:
        from peft.utils import get_peft_model_state_dict

        config = self.pipeline.transformer.peft_config["default"]
        state = get_peft_model_state_dict(self.pipeline.transformer)
        return Adapter(
            tensors={f"transformer.{name}": state[name].detach().float().cpu().clone() for name in sorted(state)},
            config={
                "r": config.r,
                "lora_alpha": config.lora_alpha,
                "target_modules": sorted(config.target_modules),
            },
            base=self.weights_identity,
        )

    def load_adapter(self, adapter: Adapter | None) -> None:
        self.pipeline.unload_lora_weights()
        if adapter is None:
            return
        if adapter.base != self.weights_identity:
            raise InputError(
                "the adapter was trained on another model than the one it is to change",
                field="generator.path",
                remedy="train the adapter again on this model, or give the model it was trained on",
            )
        self.pipeline.transformer.load_lora_adapter(
            dict(adapter.tensors),
            prefix="transformer",
            metadata={f"transformer.{name}": value for name, value in adapter.config.items()},
        )
