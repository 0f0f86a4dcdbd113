"""What some of the pipelines have in common: clips in time, prompts of one length, a schedule of whole steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.generators.contract import Condition
from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator

if TYPE_CHECKING:
    import torch


class DiscreteSchedule(PipelineGenerator):
    """A pipeline whose scheduler mixes sqrt(abar_t) of the latents with sqrt(1 - abar_t) of noise, t a whole number."""

    def signal_and_noise(self, timesteps: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sqrt(abar_t) and sqrt(1 - abar_t), shaped to multiply latents."""
        cumulative = self.pipeline.scheduler.alphas_cumprod.to(like.device)[timesteps].to(like.dtype)
        cumulative = cumulative.view((-1,) + (1,) * (like.ndim - 1))
        return cumulative.sqrt(), (1.0 - cumulative).sqrt()

    def noise_share_of_step(self, timestep: torch.Tensor) -> float:
        """Return s / (a + s), for latents a x_0 + s noise."""
        cumulative = float(self.pipeline.scheduler.alphas_cumprod[int(timestep)])
        signal, deviation = cumulative**0.5, (1.0 - cumulative) ** 0.5
        return deviation / (signal + deviation)

    def time_at(self, share: float) -> torch.Tensor:
        """Return the first timestep with at least so much noise."""
        import torch

        cumulative = self.pipeline.scheduler.alphas_cumprod
        signal, deviation = cumulative.sqrt(), (1.0 - cumulative).sqrt()
        later = deviation / (signal + deviation) >= share
        return torch.tensor(int(later.int().argmax()) if bool(later.any()) else len(later) - 1)

    def draw_timesteps(self, count: int, random: torch.Generator) -> torch.Tensor:
        import torch

        return torch.randint(0, self.pipeline.scheduler.config.num_train_timesteps, (count,), generator=random)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        signal, deviation = self.signal_and_noise(timesteps, latents)
        return signal * latents + deviation * noise


class VideoPipelineGenerator(PipelineGenerator):
    """A text-to-video pipeline with one text encoder, whose prompts are padded to a fixed number of tokens."""

    steerable: ClassVar[bool] = True
    lone_frames: ClassVar[int] = 1

    def check_size(self) -> None:
        super().check_size()
        self.check_number("num_frames", self.parameters.num_frames, self.lone_frames, self.frame_group)

    @property
    def frame_group(self) -> int:
        """Frames by which a clip's length can grow."""
        return int(self.pipeline.vae_scale_factor_temporal)

    @property
    def pixels_a_token(self) -> int:
        patch = self.denoiser.config["patch_size"]  # type: ignore[index]
        return int(self.pipeline.vae_scale_factor_spatial) * int(patch if isinstance(patch, int) else patch[-1])

    @property
    @abstractmethod
    def text_length(self) -> int:
        """Tokens to which every prompt is padded."""

    def text_limit(self, tokenizer: str) -> int:
        return self.text_length

    def run_pipeline(self, **arguments: Any) -> Any:
        return self.pipeline(
            num_frames=self.parameters.num_frames, max_sequence_length=self.text_length, **arguments
        ).frames

    def encoded(self, prompts: list[str]) -> Condition:
        embeddings, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.device
        )
        return {"prompt_embeddings": embeddings}
