"""Guidance by a reward on noised latents while clips are sampled (Flow-NRG).

Source: Liu et al. 2025, Improving Video Generation with Human Feedback, equation 11 and appendix C. For a rectified
flow, x_t = (1 - t) x_0 + t noise, samples of the density p(x) exp(w r(x)) follow the velocity

    v'(x_t) = v(x_t) - w t / (1 - t) grad r(x_t, t, prompt),

where v is what the network predicts after classifier-free guidance, and r a reward that was trained on noised latents.
For v-prediction diffusion, x = a x_0 + s noise with a = sqrt(abar) and s = sqrt(1 - abar), the same follows from
classifier guidance (Dhariwal and Nichol 2021): the score, -noise / s, gains w grad r, so noise' = noise - w s grad r;
with noise = s x + a v that is v' = v - w (s / a) grad r. With the share of noise t = s / (a + s) the factor s / a is
t / (1 - t) again, so that one formula, one limit of it and one range of times serve both.

Nothing of diffusers' loops is copied: the scheduler's ``step`` gets the changed prediction, whatever the solver does
with it, and the prompts' embeddings are those that the pipeline itself makes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GuidanceReward
from vr_pipeline.generators.watch import Watch, replaced_for_now

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

LATENT_REWARD = "vr_pipeline.generators.latent_reward:LatentReward"
"""``package.module:class`` of the reward: it knows generators, which know of guidance."""

PREDICTIONS = ("flow", "velocity")
"""What the network of a generator that can be guided predicts."""

_ROUNDING = 1e-6


class NoisedReward(Protocol):
    """What guidance needs of a reward; :class:`~vr_pipeline.generators.latent_reward.LatentReward` has it."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Return the names of the scores."""

    def scores(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return scores of noised latents, [batch, dimensions], float32, differentiable by the latents."""


@dataclass
class Counts:
    """Steps of one clip, by what guidance did with them.

    Attributes:
        guided: the reward's gradient was added.
        clipped: of these, with a factor that was above the limit.
        outside: left alone, because the share of noise is outside the configured range.
        noise_alone: left alone, because there is nothing but noise.
    """

    guided: int = 0
    clipped: int = 0
    outside: int = 0
    noise_alone: int = 0


@dataclass
class Guidance:
    """A reward, and how strongly it steers; one for each generator.

    Attributes:
        reward: the reward.
        settings: how strongly.
        training_timesteps: steps of the generator's schedule; a share of noise of the last of them counts as 1.
        counts: of the steps of the last batch.
    """

    reward: NoisedReward
    settings: GuidanceReward
    training_timesteps: int
    counts: Counts = field(default_factory=Counts)
    _reported: Counts | None = None

    def __post_init__(self) -> None:
        unknown = sorted(self.settings.weights.keys() - set(self.reward.dimensions))
        if unknown:
            raise InputError(
                f"the reward that is to steer has no dimension '{unknown[0]}'",
                field="generator.guidance_reward.weights",
                remedy=f"choose among {', '.join(self.reward.dimensions)}",
            )

    def factor(self, share: float) -> float | None:
        """Return t / (1 - t), at most the configured limit, for a share of noise t; None where a step is left alone.

        Counts the step.
        """
        settings, counts = self.settings, self.counts
        # A schedule of T steps cannot come closer to noise than 1 / T; some schedulers start there instead of at 1.
        if share >= 1.0 - 1.0 / self.training_timesteps - _ROUNDING:
            counts.noise_alone += 1
            return None
        if not settings.from_ <= share <= settings.to:
            counts.outside += 1
            return None
        counts.guided += 1
        factor = share / (1.0 - share)
        if settings.clip is not None and factor > settings.clip:
            counts.clipped += 1
            return settings.clip
        return factor

    def gradient(
        self, noised: torch.Tensor, timesteps: torch.Tensor, condition: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the gradient of the weighted sum of scores by the latents, of their shape, float32.

        Args:
            noised: latents, [batch, ...].
            timesteps: times on the generator's own scale, [batch].
            condition: text condition, every tensor [batch, ...].
        """
        import torch

        weights = torch.tensor([self.settings.weights.get(name, 0.0) for name in self.reward.dimensions])
        with torch.enable_grad(), torch.autocast(noised.device.type, enabled=False):
            latents = noised.detach().float().requires_grad_()
            scores = self.reward.scores(latents, timesteps, condition)
            # Scores of one sample depend on no other sample: the gradient of their sum is that of each.
            (gradient,) = torch.autograd.grad((scores.float() * weights.to(scores.device)).sum(), latents)
        return gradient

    def report(self) -> None:
        """Log what guidance did with the steps, unless it is what was logged before."""
        counts = self.counts
        if counts == self._reported:
            return
        self._reported = counts
        steps = counts.guided + counts.outside + counts.noise_alone
        clipped = (
            f", {counts.clipped} of them with the factor clipped at {self.settings.clip}" if counts.clipped else ""
        )
        logger.info("The reward steers %d of %d denoising steps%s.", counts.guided, steps, clipped)


def load_guidance(generator: Any) -> Guidance | None:
    """Load the reward that steers a generator, if there is one.

    Args:
        generator: a pipeline of diffusers, :class:`~vr_pipeline.generators.diffusers_pipeline.PipelineGenerator`.

    Raises:
        InputError: the reward is not there, was made for another model, lacks a dimension that has a weight, or
            generators of this kind cannot be steered.
    """
    settings: GuidanceReward | None = generator.parameters.guidance_reward
    if settings is None:
        return None
    if generator.prediction_type not in PREDICTIONS or not (generator.steerable or generator.takes_image):
        what = "" if generator.prediction_type in PREDICTIONS else f" that predicts {generator.prediction_type}"
        raise InputError(
            f"a generator of the family {generator.parameters.family}{what} cannot be steered by a reward",
            field="generator.guidance_reward",
            remedy="set it to null, or choose a generator of text to video: CogVideoX or Wan",
        )
    if generator.takes_image:
        raise InputError(
            "a generator that starts from a first frame cannot be steered by a reward",
            field="generator.guidance_reward",
            remedy="set it to null, or choose a text-to-video generator",
        )
    reward = pkgutil.resolve_name(LATENT_REWARD).load(Path(settings.model).expanduser(), generator)
    return Guidance(reward, settings, generator.training_timesteps)


@contextlib.contextmanager
def guided(
    pipeline: Any, guidance: Guidance | None, noise_share: Callable[[torch.Tensor], float], watch: Watch
) -> Iterator[None]:
    """Have a pipeline of diffusers sample with guidance within a block; without guidance it stays as it is.

    Args:
        pipeline: its ``encode_prompt`` returns the prompts' embeddings first.
        guidance: of one generator; None, or one that is off, changes nothing.
        noise_share: from a step's time to the share of noise in the latents at that step of the scheduler.
        watch: receives reports of gradients that are not finite.
    """
    if guidance is None or not guidance.settings.is_on:
        yield
        return
    guidance.counts = Counts()
    steps = _Steps(guidance, noise_share, watch)
    scheduler = pipeline.scheduler
    with (
        replaced_for_now(pipeline, "encode_prompt", steps.listening(pipeline.encode_prompt)),
        replaced_for_now(scheduler, "step", steps.steering(scheduler.step)),
    ):
        yield
    guidance.report()


class _Steps:
    """The steps of one batch of clips."""

    def __init__(self, guidance: Guidance, noise_share: Callable[[torch.Tensor], float], watch: Watch) -> None:
        self._guidance = guidance
        self._noise_share = noise_share
        self._watch = watch
        self._embeddings: torch.Tensor | None = None
        self._number = 0

    def listening(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Keep the prompts' embeddings that a pipeline makes."""

        @functools.wraps(encode)
        def encode_prompt(*arguments: Any, **keywords: Any) -> Any:
            made = encode(*arguments, **keywords)
            self._embeddings = made[0]
            return made

        return encode_prompt

    def steering(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Give a scheduler the prediction with the reward's gradient added."""
        signature = inspect.signature(step)

        # Pipelines ask the signature what the scheduler takes; the wrapper shows the scheduler's own.
        @functools.wraps(step)
        def guided_step(*arguments: Any, **keywords: Any) -> Any:
            given = signature.bind(*arguments, **keywords)
            values = given.arguments
            values["model_output"] = self._steered(values["model_output"], values["timestep"], values["sample"])
            return step(*given.args, **given.kwargs)

        return guided_step

    def _steered(self, prediction: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        self._number += 1
        factor = self._guidance.factor(self._noise_share(timestep))
        if factor is None:
            return prediction
        assert self._embeddings is not None, "the pipeline encoded no prompts"
        times = timestep.expand(len(sample))
        gradient = self._guidance.gradient(sample, times, {"prompt_embeddings": self._embeddings})
        self._watch.look(gradient, f"in the gradient of the reward that steers denoising step {self._number}")
        return (prediction.float() - self._guidance.settings.scale * factor * gradient).to(prediction.dtype)
