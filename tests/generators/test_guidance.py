"""Guidance by a reward while clips are sampled, against the formula and against diffusers' own samplers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from plain_diffusers import call_directly, plain_pipeline
from tiny_models import PROMPTS
from vr_pipeline.errors import InputError
from vr_pipeline.generators import guidance, load_generator
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.contract import sampling_identity, weights_identity
from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
from vr_pipeline.generators.guidance import Counts, Guidance
from vr_pipeline.generators.latent_reward import LatentReward, LatentRewardSettings
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.devices import resolve_device
from vr_pipeline.work import ItemFailure

GUIDED = ("cogvideox_2b", "cogvideox_5b", "micro_world", "wan")
WEIGHTS = {"pull": 0.5, "push": -2.0}


@dataclass
class ClosedForm:
    """Scores whose gradients are known: pull is -|x - prompt|^2 / 2, push is the sum of x times the time."""

    dimensions: tuple[str, ...] = ("pull", "push")
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    lost: int | None = None
    """A row of every batch that becomes no number."""

    def scores(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Any) -> torch.Tensor:
        embeddings = condition["prompt_embeddings"]
        self.seen.append((noised.detach().clone(), timesteps.clone(), embeddings.clone()))
        away = noised - self.target(embeddings, noised)
        pull = -0.5 * (away**2).flatten(1).sum(dim=1)
        push = noised.flatten(1).sum(dim=1) * timesteps / 1000
        if self.lost is not None:
            pull = pull * torch.where(torch.arange(len(pull)) == self.lost, torch.nan, 1.0)
        return torch.stack([pull, push], dim=1)

    @staticmethod
    def target(embeddings: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return embeddings.float().mean(dim=(1, 2)).view(-1, *[1] * (like.ndim - 1))

    def gradient(self, noised: torch.Tensor, time: float, embeddings: torch.Tensor) -> torch.Tensor:
        pull = self.target(embeddings, noised) - noised
        return WEIGHTS["pull"] * pull + WEIGHTS["push"] * time / 1000


def guided_by(
    reward: Any, parameters: GeneratorParameters, scheduler: Any = None, **settings: Any
) -> PipelineGenerator:
    """A generator that is steered by a reward."""
    generator = load_generator(parameters)
    assert isinstance(generator, PipelineGenerator)
    if scheduler is not None:
        generator.pipeline.scheduler = scheduler
    chosen = {"model": "unused", "weights": WEIGHTS, "scale": 0.02} | settings
    generator.guidance = Guidance(reward, GuidanceReward.model_validate(chosen), generator.training_timesteps)
    return generator


def schedulers_of_flows() -> Iterator[Any]:
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    yield FlowMatchEulerDiscreteScheduler(shift=3.0)
    yield UniPCMultistepScheduler(**flow)
    yield DPMSolverMultistepScheduler(**flow)


@dataclass
class Steps:
    """What a scheduler was given, step by step."""

    given: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Record what reaches the class of a scheduler: prediction, time and latents of every step."""

    def record(scheduler: Any) -> Steps:
        steps, kind = Steps(), type(scheduler)
        step = kind.step

        def recording(self: Any, model_output: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
            # The solver of CogVideoX's larger models takes its former estimate and its former time between.
            place = (1, 3) if kind.__name__ == "CogVideoXDPMScheduler" else (0, 1)
            time, sample = (arguments[one] for one in place)
            steps.given.append((model_output.clone(), time, sample.clone()))
            return step(self, model_output, *arguments, **keywords)

        recording.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
        monkeypatch.setattr(kind, "step", recording)
        return steps

    return record


@pytest.mark.parametrize("off", [{"scale": 0.0}, {"weights": {"pull": 0.0}}])
@pytest.mark.parametrize("name", GUIDED)
def test_with_weight_0_the_sampler_is_that_of_diffusers(
    name: str, off: dict[str, Any], settings: dict[str, GeneratorParameters]
) -> None:
    reward = ClosedForm()
    generator = guided_by(reward, settings[name], **off)
    theirs = call_directly(plain_pipeline(settings[name]), settings[name], [7, 8], list(PROMPTS[:2]))
    assert np.array_equal(generator.sample(PROMPTS[:2], [7, 8]), theirs)
    assert not reward.seen


@pytest.mark.parametrize("number", range(3), ids=["Euler", "UniPC", "DPM"])
def test_a_reward_without_slope_changes_no_bit_of_any_solver(
    number: int, settings: dict[str, GeneratorParameters]
) -> None:
    class Flat(ClosedForm):
        def scores(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Any) -> torch.Tensor:
            return 0.0 * super().scores(noised, timesteps, condition)

    scheduler, reward = list(schedulers_of_flows())[number], Flat()
    parameters = settings["wan"].model_copy(update={"num_inference_steps": 4})
    pipeline = plain_pipeline(parameters)
    pipeline.scheduler = type(scheduler).from_config(scheduler.config)
    theirs = call_directly(pipeline, parameters, [7, 8], list(PROMPTS[:2]))
    generator = guided_by(reward, parameters, scheduler, scale=1.0)
    assert np.array_equal(generator.sample(PROMPTS[:2], [7, 8]), theirs)
    assert len(reward.seen) == 3


def free_of_guidance(generator: PipelineGenerator, sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """What the network says of latents after classifier-free guidance."""
    scale = generator.parameters.guidance_scale
    with torch.no_grad():
        with_text, without = (
            generator.predict(sample, time.expand(len(sample)), generator.encode_prompts(prompts)).float()
            for prompts in (PROMPTS[:2], [""] * 2)
        )
    return without + scale * (with_text - without) if scale > 1 else with_text


@pytest.mark.parametrize("number", range(3), ids=["Euler", "UniPC", "DPM"])
def test_the_velocity_of_a_flow_follows_the_formula(
    number: int, settings: dict[str, GeneratorParameters], recorded: Any
) -> None:
    """Classifier-free guidance first, then v' = v - w t / (1 - t) grad r, with t the scheduler's shifted sigma."""
    scheduler, reward = list(schedulers_of_flows())[number], ClosedForm()
    steps = recorded(scheduler)
    parameters = settings["wan"].model_copy(update={"num_inference_steps": 5})
    generator = guided_by(reward, parameters, scheduler, clip=None)
    generator.sample(PROMPTS[:2], [7, 8])
    embeddings = generator.encode_prompts(PROMPTS[:2])["prompt_embeddings"]
    # The middle of the steps lies far towards noise; times are the shares, in thousandths, perhaps rounded down.
    assert float(scheduler.sigmas[2]) > 0.7
    for step, (given, time, sample) in enumerate(steps.given):
        expected = free_of_guidance(generator, sample, time)
        if step > 0:
            sigma = float(scheduler.sigmas[step])
            assert 0.0 <= sigma - float(time) / 1000 + 1e-6 < 0.001
            expected -= 0.02 * sigma / (1 - sigma) * reward.gradient(sample, float(time), embeddings)
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    assert generator.guidance is not None
    assert generator.guidance.counts == Counts(guided=4, noise_alone=1)
    # The reward is evaluated at exactly the latents, times and prompts of the network.
    for (noised, times, text), (_, time, sample) in zip(reward.seen, steps.given[1:], strict=True):
        assert torch.equal(noised, sample.float())
        assert torch.equal(times, time.expand(2))
        torch.testing.assert_close(text, embeddings)


@pytest.mark.parametrize("name", ["cogvideox_2b", "cogvideox_5b", "micro_world"])
def test_the_score_of_a_diffusion_gains_the_gradient(
    name: str, settings: dict[str, GeneratorParameters], recorded: Any
) -> None:
    """Noise' = noise - w sqrt(1 - abar) grad r (Dhariwal and Nichol 2021, algorithm 2), by the estimate of x_0."""
    reward = ClosedForm()
    parameters = settings[name].model_copy(update={"num_inference_steps": 4})
    generator = guided_by(reward, parameters, clip=None)
    steps = recorded(generator.pipeline.scheduler)
    generator.sample(PROMPTS[:2], [7, 8])
    embeddings = generator.encode_prompts(PROMPTS[:2])["prompt_embeddings"]
    cumulative = generator.pipeline.scheduler.alphas_cumprod.double()
    for step, (given, time, sample) in enumerate(steps.given):
        free = free_of_guidance(generator, sample, time)
        if step == 0:
            # Zero signal-to-noise ratio: there is no score to correct.
            torch.testing.assert_close(given, free, rtol=1e-4, atol=1e-5)
            continue
        signal, deviation = float(cumulative[time] ** 0.5), float((1 - cumulative[time]) ** 0.5)
        noise = signal * free + deviation * sample
        noise -= 0.02 * deviation * reward.gradient(sample, float(time), embeddings)
        expected = (sample - deviation * noise) / signal
        ours = signal * sample - deviation * given
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    assert generator.guidance is not None
    assert generator.guidance.counts == Counts(guided=3, noise_alone=1)


def test_steps_are_clipped_left_alone_and_counted(
    settings: dict[str, GeneratorParameters], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = guided_by(ClosedForm(), settings["wan"], clip=3.0, **{"from": 0.25, "to": 0.95})
    steered = generator.guidance
    assert steered is not None
    shares = [1.0, 0.9991, 0.96, 0.95, 0.8, 0.75, 0.5, 0.25, 0.2, 0.0]
    expected = [None, None, None, 3.0, 3.0, 3.0, 1.0, 1 / 3, None, None]
    factors = [steered.factor(share) for share in shares]
    assert factors == pytest.approx(expected)
    assert steered.counts == Counts(guided=5, clipped=2, outside=3, noise_alone=2)
    said: list[str] = []
    monkeypatch.setattr(guidance.logger, "info", lambda text, *values: said.append(text % values))
    steered.report()
    steered.report()
    assert said == ["The reward steers 5 of 10 denoising steps, 2 of them with the factor clipped at 3.0."]


def test_clips_depend_on_their_seed_and_prompt_alone(settings: dict[str, GeneratorParameters]) -> None:
    generator = guided_by(ClosedForm(), settings["micro_world"], scale=1.0)
    together = generator.sample(PROMPTS, [1, 2, 3])
    assert np.array_equal(together[2:], generator.sample(PROMPTS[2:], [3]))
    again = guided_by(ClosedForm(), settings["micro_world"], scale=1.0)
    assert np.array_equal(together, again.sample(PROMPTS, [1, 2, 3]))
    assert not np.array_equal(together, load_generator(settings["micro_world"]).sample(PROMPTS, [1, 2, 3]))
    # The pipeline is left as it was.
    assert "step" not in vars(generator.pipeline.scheduler)
    assert "encode_prompt" not in vars(generator.pipeline)


def test_guidance_goes_with_a_policy(settings: dict[str, GeneratorParameters]) -> None:
    generator = guided_by(ClosedForm(), settings["wan"], scale=1.0)
    guided = generator.sample(PROMPTS[:2], [1, 2])
    for value in generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0):
        value.data = 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    policy = generator.policy()
    both = generator.sample(PROMPTS[:2], [1, 2])
    plain = load_generator(settings["wan"])
    plain.load_policy(policy)
    trained = plain.sample(PROMPTS[:2], [1, 2])
    assert not np.array_equal(both, guided)
    assert not np.array_equal(both, trained)


def test_a_gradient_that_is_no_number_fails_its_clip_alone(settings: dict[str, GeneratorParameters]) -> None:
    expected = guided_by(ClosedForm(), settings["micro_world"]).sample(PROMPTS[:2], [1, 2])
    first, second = guided_by(ClosedForm(lost=1), settings["micro_world"]).sample_each(PROMPTS[:2], [1, 2])
    assert np.array_equal(first, expected[0])
    assert isinstance(second, ItemFailure)
    assert "in the gradient of the reward that steers denoising step 2" in second.reason


# -- settings and identities ------------------------------------------------------------------------------------------


class Loaded(ClosedForm):
    """A reward that needs no file to load."""

    @classmethod
    def load(cls, folder: Path, generator: Any) -> Loaded:
        assert generator.weights_identity
        return cls()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guidance, "LATENT_REWARD", f"{__name__}:Loaded")
    place = tmp_path / "reward"
    place.mkdir()
    (place / "weights.safetensors").write_bytes(b"some weights")
    return place


def test_a_clip_s_identity_holds_the_reward_and_how_it_steers(
    folder: Path, settings: dict[str, GeneratorParameters]
) -> None:
    def identity(**changes: Any) -> str:
        chosen = {"model": str(folder), "weights": {"pull": 0.5, "push": 1}} | changes
        return sampling_identity(plain.model_copy(update={"guidance_reward": GuidanceReward.model_validate(chosen)}))

    plain = settings["wan"]
    # Without guidance identities are what they were before there was any.
    before = plain.model_dump_json(
        exclude={"path", "revision", "fps", "offload", "device", "vae_tiling", "first_frame_noise"}
        | {"guidance_reward"}
    )
    assert sampling_identity(plain) == content_hash(
        "generator", weights_identity(plain), before, resolve_device(plain.device)
    )
    steered = identity()
    changed = [
        identity(scale=2.0),
        identity(clip=None),
        identity(to=0.9),
        identity(**{"from": 0.1}),
        identity(weights={"pull": 0.5, "push": 2.0}),
        identity(weights={"pull": 0.5}),
    ]
    assert len({sampling_identity(plain), steered, *changed}) == 2 + len(changed)
    assert identity(weights={"push": 1.0, "pull": 0.5}) == steered
    moved = folder.rename(folder.with_name("elsewhere"))
    assert identity(model=str(moved)) == steered
    (moved / "weights.safetensors").write_bytes(b"other weights")
    assert identity(model=str(moved)) != steered
    with pytest.raises(InputError, match=r"latent_reward_training.*guidance_reward\.model|guidance_reward\.model"):
        identity(model=str(folder))


def test_a_reward_is_loaded_for_sampling_and_checked(folder: Path, settings: dict[str, GeneratorParameters]) -> None:
    def steered(name: str, weights: dict[str, float]) -> GeneratorParameters:
        chosen = {"model": str(folder), "weights": weights, "scale": 1.0}
        return settings[name].model_copy(update={"guidance_reward": GuidanceReward.model_validate(chosen)})

    parameters = steered("wan", WEIGHTS)
    generator = load_generator(parameters)
    assert generator.identity == sampling_identity(parameters)
    expected = guided_by(ClosedForm(), settings["wan"], scale=1.0).sample(PROMPTS[:1], [3])
    assert np.array_equal(generator.sample(PROMPTS[:1], [3]), expected)
    assert load_generator(parameters, ("autoencoder",)).guidance is None  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"no dimension 'speed'.*pull, push"):
        load_generator(steered("wan", {"speed": 1.0}))
    with pytest.raises(InputError, match="predicts noise cannot be steered"):
        load_generator(steered("sdxl", WEIGHTS))


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": {}},
        {"weights": {"pull": float("nan")}},
        {"scale": -1.0},
        {"clip": 0.0},
        {"from": 0.5, "to": 0.5},
        {"until": 1.0},
    ],
)
def test_settings_that_mean_nothing_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GuidanceReward.model_validate({"model": "x", "weights": {"pull": 1.0}} | wrong)


@pytest.mark.parametrize("name", ["micro_world", "wan"])
def test_a_latent_reward_steers_the_generator_that_it_was_made_for(
    name: str, tmp_path: Path, settings: dict[str, GeneratorParameters]
) -> None:
    plain = load_generator(settings[name])
    described = LatentRewardSettings.model_validate(
        {"dimensions": ("motion", "text"), "network": {"blocks": 1}, "base": weights_identity(settings[name])}
    )
    LatentReward(plain, described, seed=1).save(tmp_path)
    chosen = {"model": str(tmp_path), "weights": {"motion": 1.0, "text": -0.5}, "scale": 20.0}
    steered = GuidanceReward.model_validate(chosen)
    generator = load_generator(settings[name].model_copy(update={"guidance_reward": steered}))
    assert isinstance(generator, PipelineGenerator)
    assert generator.guidance is not None
    guided = generator.sample(PROMPTS[:2], [1, 2])
    assert not np.array_equal(guided, plain.sample(PROMPTS[:2], [1, 2]))
    # A trained policy changes the denoiser and not the reward, which keeps the blocks that it was trained with.
    generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)
    policy = generator.policy()
    for value in policy.tensors.values():
        value += 0.2
    latents = torch.randn(2, *latents_of(generator).shape[1:], generator=torch.Generator().manual_seed(0))
    asked = (latents, torch.tensor([300, 300]), generator.encode_prompts(PROMPTS[:2]))
    before = generator.guidance.gradient(*asked)
    generator.load_policy(policy)
    assert torch.equal(generator.guidance.gradient(*asked), before)
    assert not np.array_equal(generator.sample(PROMPTS[:2], [1, 2]), guided)
    assert generator.guidance.counts.guided == settings[name].num_inference_steps - 1
    other = settings["wan" if name == "micro_world" else "micro_world"]
    with pytest.raises(InputError, match="another generator"):
        load_generator(other.model_copy(update={"guidance_reward": steered}))


def latents_of(generator: PipelineGenerator) -> torch.Tensor:
    made = generator.parameters
    return generator.encode_frames(np.zeros((1, made.num_frames, made.height, made.width, 3), dtype=np.uint8))
