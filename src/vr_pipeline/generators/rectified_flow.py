"""What generators of rectified flow share: straight paths from clips to noise, and times as sampling spends them.

Source: Liu et al. 2022, Flow Straight and Fast. With t from 0 (data) to 1 (noise), x_t = (1 - t) x_0 + t noise, and the
network predicts the velocity noise - x_0 at the time T t. Esser et al. 2024 (Scaling Rectified Flow Transformers,
section 5.3.2) shift times by t -> s t / (1 + (s - 1) t); families of one size have one shift s, others one by size.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
from vr_pipeline.generators.settings import Settings, Wanted, none_or, of_class, one_of, positive, share, whole

if TYPE_CHECKING:
    import torch


def latent_statistics(value: Any, settings: Settings) -> bool:
    """Return one finite number for each channel of the latents."""
    numbers = isinstance(value, list | tuple) and all(
        isinstance(one, int | float) and math.isfinite(one) for one in value
    )
    return numbers and len(value) == settings["vae"]["z_dim"]


def latent_deviations(value: Any, settings: Settings) -> bool:
    """Return one finite number above 0 for each channel of the latents."""
    return latent_statistics(value, settings) and all(one > 0 for one in value)


NORMALISED_LATENTS: Final[dict[str, tuple[Wanted, str]]] = {
    "latents_mean": (latent_statistics, "latents are normalised by one finite number per channel"),
    "latents_std": (latent_deviations, "latents are normalised by one finite number above 0 per channel"),
}
"""What families take for granted whose autoencoder's latents are normalised channel by channel."""

_OTHER_SIGMAS = "training draws its times as the scheduler shifts its own, without further curves"

FLOW_SCHEDULER: Final[dict[str, tuple[Wanted, str]]] = {
    **of_class("FlowMatchEulerDiscreteScheduler", "the schedule is a rectified flow's"),
    "num_train_timesteps": (whole, "the network is given times of so many steps"),
    "shift": (none_or(positive), "times are shifted by it"),
    "use_dynamic_shifting": (one_of(False, None), "the shift is one number for every size"),
    "shift_terminal": (one_of(None), _OTHER_SIGMAS),
    "use_karras_sigmas use_exponential_sigmas use_beta_sigmas": (one_of(False, None), _OTHER_SIGMAS),
    "invert_sigmas": (one_of(False, None), "noise falls while sampling"),
    "stochastic_sampling": (one_of(False, None), "this pipeline draws such noise without the clip's seed"),
}
"""What families take for granted of a rectified flow's own scheduler, shifted by one number."""

SIZED_SCHEDULER: Final[dict[str, tuple[Wanted, str]]] = FLOW_SCHEDULER | {
    "num_train_timesteps": (one_of(1000), "the pipeline counts time in thousandths"),
    "use_dynamic_shifting": (one_of(True, False, None), "times are shifted by one number or by one for each size"),
    "time_shift_type": (one_of("exponential", "linear"), "the shift by size is one of the two that are known"),
    "base_shift max_shift": (positive, "the shift grows with the size between these"),
    "base_image_seq_len max_image_seq_len": (whole, "these are the sizes of the smallest and the largest shift"),
    "shift_terminal": (none_or(share), "the last step of sampling begins at this share of noise"),
}
"""The same where its shift may grow with the size."""

FLOW_SCHEDULERS: Final[dict[str, tuple[Wanted, str]]] = FLOW_SCHEDULER | {
    **of_class(
        "FlowMatchEulerDiscreteScheduler UniPCMultistepScheduler DPMSolverMultistepScheduler",
        "the schedule is a rectified flow's",
    ),
    "prediction_type": (one_of("flow_prediction", None), "the loss is that of a network that predicts the flow"),
    "use_flow_sigmas": (one_of(True, None), "the schedule is a rectified flow's"),
    "flow_shift": (none_or(positive), "times are shifted by it"),
    "use_lu_lambdas": (one_of(False, None), _OTHER_SIGMAS),
    "final_sigmas_type": (one_of("zero", None), "sampling ends without noise"),
    "algorithm_type": (
        one_of("dpmsolver++", "dpmsolver", None),
        "this pipeline draws the noise of stochastic solvers without the clip's seed",
    ),
}
"""The same where multistep schedulers can stand in its place."""


class RectifiedFlow(PipelineGenerator):
    """A pipeline whose network predicts the velocity from clips to noise.

    Attributes:
        noise_dtype: precision in which the pipeline draws its first noise; None for that of the text encoder.
    """

    prediction_type: ClassVar[str] = "flow"
    error_space: ClassVar[str] = "velocity"
    noise_dtype: ClassVar[str | None] = "float32"

    @property
    def shift(self) -> float:
        """How far the schedule leans towards noise; the name differs between schedulers."""
        config = self.pipeline.scheduler.config
        return float(config.get("shift") or config.get("flow_shift") or 1.0)

    def timesteps_at(self, shares: torch.Tensor) -> torch.Tensor:
        return shares * self.training_timesteps

    def noise_share(self, timesteps: torch.Tensor) -> torch.Tensor:
        return timesteps / self.pipeline.scheduler.config.num_train_timesteps  # type: ignore[no-any-return]

    def noise_share_of_step(self, timestep: torch.Tensor) -> float:
        """Return the scheduler's sigma: it is shifted, and more exact than times, some of which are rounded."""
        scheduler = self.pipeline.scheduler
        # The scheduler counts from its first step on; before, the pipeline has only told it where to begin.
        step = scheduler.step_index if scheduler.step_index is not None else scheduler.begin_index or 0
        return float(scheduler.sigmas[step])

    def time_at(self, share: float) -> torch.Tensor:
        import torch

        return torch.tensor(share * self.pipeline.scheduler.config.num_train_timesteps)

    def initial_noise(self, shape: Sequence[int], seed: int) -> torch.Tensor:
        import torch

        dtype = getattr(torch, self.noise_dtype or self.parameters.dtype)
        return torch.randn(1, *shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=dtype)[0].float()

    def draw_timesteps(self, count: int, random: torch.Generator) -> torch.Tensor:
        """Draw times along the schedule that sampling takes: uniform, then shifted as the scheduler shifts its own."""
        import torch

        steps = self.pipeline.scheduler.config.num_train_timesteps
        return steps * self.shifted(torch.randint(1, steps + 1, (count,), generator=random) / steps)

    def shifted(self, shares: torch.Tensor) -> torch.Tensor:
        """Return the shares of noise at shares of the way that sampling goes, from 0 (its end) to 1."""
        return self.shift * shares / (1.0 + (self.shift - 1.0) * shares)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        share = self.noise_share(timesteps.to(latents.device, latents.dtype)).view((-1,) + (1,) * (latents.ndim - 1))
        return (1.0 - share) * latents + share * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return noise - latents

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents of the autoencoder normalised channel by channel, [batch, channels, ...], float32, CPU."""
        import torch

        config, shape = self.pipeline.vae.config, (1, -1, *(1,) * (latents.ndim - 2))
        mean, deviation = (torch.tensor(one).view(shape) for one in (config.latents_mean, config.latents_std))
        return (latents.float().cpu() - mean) / deviation


class SizedFlow(RectifiedFlow):
    """A rectified flow whose scheduler may shift times by the number of tokens of a clip."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens of a clip of the configured size."""

    @property
    def shift(self) -> float:
        config = self.pipeline.scheduler.config
        if not config.use_dynamic_shifting:
            return super().shift
        grown = self.grown_shift()
        return math.exp(grown) if config.time_shift_type == "exponential" else grown

    def grown_shift(self) -> float:
        """Return the number by which the scheduler shifts clips of the configured size: linear in their tokens."""
        config = self.pipeline.scheduler.config
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        return float(config.base_shift + slope * (self.tokens - config.base_image_seq_len))

    def shifted(self, shares: torch.Tensor) -> torch.Tensor:
        """Return the shares of noise along the schedule, stretched to end where the last step of sampling begins."""
        import torch

        # As the scheduler writes it, exact at the end; the shift of a size is no round number.
        def lean(straight: torch.Tensor) -> torch.Tensor:
            return self.shift / (self.shift + (1.0 / straight - 1.0))

        noise, last = lean(shares), self.pipeline.scheduler.config.shift_terminal
        if last is None:
            return noise
        step = torch.tensor(1.0 / self.parameters.num_inference_steps)
        stretched = 1.0 - (1.0 - noise) * (1.0 - last) / (1.0 - lean(step))
        # The last step goes straight on to the clip.
        return torch.where(shares < step, last * shares / step, stretched)
