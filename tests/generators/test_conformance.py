"""What every family keeps, against the pipeline and the scheduler of diffusers: one suite for all of them.

A new family is an entry of ``tests/support/generator_families.py``: its tiny model and its settings.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch

from generator_families import FAMILIES, images_for
from plain_diffusers import (
    Packing,
    call_directly,
    load_adapter_directly,
    plain_pipeline,
    recorded,
    without_draws_of_latents,
)
from tiny_models import PROMPTS, first_frames
from toy_training import largest_difference
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.errors import InputError
from vr_pipeline.generators import FAMILIES as CLASSES
from vr_pipeline.generators import diffusers_pipeline, load_generator
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.contract import Condition, Frames, Generator, sampling_identity
from vr_pipeline.generators.guidance import load_guidance
from vr_pipeline.generators.policy import Adapter, Policy
from vr_pipeline.generators.prompt_texts import TOKENIZERS
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import train_on_pairs

Settings = dict[str, GeneratorParameters]
KINDS = {name: pkgutil.resolve_name(CLASSES[family.family]).prediction_type for name, family in FAMILIES.items()}
FLOWS = [name for name, kind in KINDS.items() if kind == "flow"]
VELOCITIES = [name for name, kind in KINDS.items() if kind == "velocity"]
ONE = list(PROMPTS[:1])


def random_clips(parameters: GeneratorParameters, count: int, seed: int = 0) -> Frames:
    shape = (count, parameters.num_frames, parameters.height, parameters.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def sampled(generator: Generator, prompts: Sequence[str], seeds: Sequence[int]) -> Frames:
    """Clips of prompts, from the images that belong to them where the family takes images."""
    return generator.sample(prompts, seeds, images_for(generator.parameters.family, prompts))


def conditions(generator: Generator, prompts: Sequence[str]) -> Condition:
    return generator.encode_prompts(prompts, images_for(generator.parameters.family, prompts))


def latents_like(generator: Generator, count: int) -> torch.Tensor:
    return generator.encode_frames(random_clips(generator.parameters, count))


def noise_like(latents: torch.Tensor, seed: int = 1) -> torch.Tensor:
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


# -- sampling ---------------------------------------------------------------------------------------------------------


def test_sampling_equals_the_pipeline_of_diffusers(generator: Generator, parameters: GeneratorParameters) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ours = sampled(generator, PROMPTS, [7, 8, 9])
    assert torch.equal(torch.rand(3), expected), "the global random state is left alone"
    theirs = call_directly(plain_pipeline(parameters), parameters, [7, 8, 9, 9], [*PROMPTS, PROMPTS[2]])
    assert ours.dtype == np.uint8
    assert ours.shape == (3, parameters.num_frames, parameters.height, parameters.width, 3)
    assert np.array_equal(ours, theirs[:3])
    assert not np.array_equal(ours[2:], sampled(generator, PROMPTS[2:], [10]))
    # Batches are of one size, however many clips are asked for.
    assert np.array_equal(ours[2:], sampled(generator, PROMPTS[2:], [9]))


@pytest.mark.parametrize("usual", [True, False], ids=["usual size", "another size"])
def test_a_prediction_is_what_the_pipeline_gives_its_scheduler(name: str, usual: bool, settings: Settings) -> None:
    """Positions and extra conditions included, at another size than the model's own too; and so is the noise."""
    changes: dict[str, Any] = {"guidance_scale": 1.0, "batch_size": 1} | ({} if usual else FAMILIES[name].other_size)
    parameters = settings[name].model_copy(update=changes)
    generator, pipeline = load_generator(parameters), without_draws_of_latents(plain_pipeline(parameters))
    FAMILIES[name].as_trained(pipeline)
    with recorded(pipeline.scheduler) as steps:
        call_directly(pipeline, parameters, [3], ONE)
    packing = packing_of(generator, pipeline, steps[0].sample, seed=3)
    condition = conditions(generator, ONE)
    assert len(steps) >= parameters.num_inference_steps
    with torch.no_grad():
        for step in steps:
            predicted = generator.predict(packing.to_ours(step.scaled), step.timestep.expand(1), condition)
            torch.testing.assert_close(packing.to_theirs(predicted.float()), step.prediction, rtol=1e-4, atol=1e-5)


def packing_of(generator: Generator, pipeline: Any, first: torch.Tensor, seed: int) -> Packing:
    shape = latents_like(generator, 1).shape[1:]
    if generator.prediction_type == "flow":
        ours = generator.initial_noise(shape, seed)[None]
    else:
        ours = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
        with pytest.raises(InputError, match="no straight path from a clip to the noise"):
            generator.initial_noise(shape, seed)
    return Packing(first, ours, float(getattr(pipeline.scheduler, "init_noise_sigma", 1.0)))


@pytest.mark.parametrize("name", FLOWS)
def test_noise_is_drawn_in_the_precision_of_the_pipeline(name: str, settings: Settings) -> None:
    parameters = settings[name].model_copy(update={"dtype": "bfloat16", "batch_size": 1})
    generator = load_generator(parameters)
    with recorded(generator.pipeline.scheduler) as steps:  # type: ignore[attr-defined]
        sampled(generator, ONE, [3])
    ours = generator.initial_noise(latents_like(generator, 1).shape[1:], 3)
    assert torch.equal(steps[0].sample.flatten().float().sort().values, ours.flatten().sort().values)


def test_images_are_taken_by_the_families_that_need_them_alone(
    generator: Generator, parameters: GeneratorParameters
) -> None:
    images = first_frames(1)
    if not generator.takes_image:
        for asked in (lambda: generator.sample(ONE, [1], images), lambda: generator.encode_prompts(ONE, images)):
            with pytest.raises(InputError, match=r"from text alone.*image-to-video family"):
                asked()
        return
    for asked in (lambda: generator.sample(ONE, [1]), lambda: generator.encode_prompts(ONE)):
        with pytest.raises(InputError, match=r"from a first frame.*Name an image"):
            asked()
    with pytest.raises(ValueError, match="as many images"):
        generator.sample(ONE, [1], first_frames(2))
    # Another image is another clip and another condition, in every part of the condition that is not the text's.
    other = [255 - images[0]]
    assert not np.array_equal(generator.sample(ONE, [1], images), generator.sample(ONE, [1], other))
    one, two = (generator.encode_prompts(ONE, given) for given in (images, other))
    assert {name for name in one if not torch.equal(one[name], two[name])} == one.keys() - {"prompt_embeddings"}
    reward = GuidanceReward(model="reward", weights={"motion": 1.0})
    generator.parameters = parameters.model_copy(update={"guidance_reward": reward})
    with pytest.raises(InputError, match="from a first frame cannot be steered"):
        load_guidance(generator)


# -- noising, target, times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_noising_and_target_of_a_flow_equal_the_scheduler(name: str, settings: Settings) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    generator = load_generator(settings[name], ("autoencoder",))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    timesteps = scheduler.timesteps[[0, 1, 300, 700, 999]]
    latents = latents_like(generator, len(timesteps))
    noise = noise_like(latents)
    noised, target = generator.add_noise(latents, noise, timesteps), generator.target(latents, noise, timesteps)
    torch.testing.assert_close(noised, scheduler.scale_noise(latents, timesteps, noise), rtol=0, atol=1e-6)
    assert torch.equal(noised[0], noise[0])
    # A perfect velocity takes the scheduler from noise alone along the straight line, to the latents.
    scheduler.set_timesteps(4)
    for step, now in enumerate(scheduler.timesteps):
        here = generator.add_noise(latents, noise, now.expand(len(latents)))
        there = scheduler.step(target, now, here, return_dict=False)[0]
        share = scheduler.sigmas[step + 1]
        torch.testing.assert_close(there, (1 - share) * latents + share * noise, rtol=0, atol=1e-5)
    torch.testing.assert_close(there, latents, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VELOCITIES)
def test_noising_and_target_of_velocities_equal_the_scheduler(name: str, settings: Settings) -> None:
    generator = load_generator(settings[name], ("autoencoder",))
    scheduler = generator.pipeline.scheduler  # type: ignore[attr-defined]
    count = scheduler.config.num_train_timesteps
    timesteps = torch.tensor([0, 1, count // 3, count // 2, count - 2, count - 1])
    latents = latents_like(generator, len(timesteps))
    noise = noise_like(latents)
    noised, target = generator.add_noise(latents, noise, timesteps), generator.target(latents, noise, timesteps)
    torch.testing.assert_close(noised, scheduler.add_noise(latents, noise, timesteps), rtol=0, atol=1e-6)
    torch.testing.assert_close(target, scheduler.get_velocity(latents, noise, timesteps), rtol=0, atol=1e-6)
    # x0 and the noise come back from x_t and v: the rotation by which v is defined is its own inverse, transposed.
    cumulative = scheduler.alphas_cumprod[timesteps].double().view(-1, 1, 1, 1, 1)
    signal, deviation = cumulative.sqrt(), (1 - cumulative).sqrt()
    torch.testing.assert_close((signal * noised - deviation * target).float(), latents, rtol=0, atol=2e-5)
    torch.testing.assert_close((signal * target + deviation * noised).float(), noise, rtol=0, atol=2e-5)
    # The last timestep has no signal.
    assert torch.equal(noised[-1], noise[-1])
    assert torch.equal(target[-1], -latents[-1])


def test_noising_and_target_of_sdxl_equal_the_schedulers(settings: Settings) -> None:
    from diffusers import DDPMScheduler

    generator = load_generator(settings["sdxl"], ("autoencoder",))
    euler = generator.pipeline.scheduler  # type: ignore[attr-defined]
    ddpm = DDPMScheduler.from_config(euler.config)
    timesteps = torch.tensor([0, 250, 999])
    latents = latents_like(generator, len(timesteps))
    noise = noise_like(latents)
    noised = generator.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(noised, ddpm.add_noise(latents, noise, timesteps), rtol=0, atol=1e-6)
    for row, step in enumerate(timesteps):
        # With the target for a prediction, the scheduler's estimate of x0 is x0.
        restored = ddpm.step(generator.target(latents, noise, timesteps)[row], step, noised[row]).pred_original_sample
        bounded = latents[row].clamp(-1, 1) if ddpm.config.clip_sample else latents[row]
        torch.testing.assert_close(restored, bounded, rtol=0, atol=1e-4)
    # The Euler scheduler's own scale, brought back as it does before the network.
    euler.set_timesteps(10)
    sigma = euler.sigmas[3]
    ours = generator.add_noise(latents[:1], noise[:1], euler.timesteps[[3]].long())
    torch.testing.assert_close(ours, (latents[:1] + sigma * noise[:1]) / (sigma**2 + 1).sqrt(), rtol=0, atol=1e-5)


def test_training_spends_its_times_as_the_steps_of_sampling_do(name: str, parameters: GeneratorParameters) -> None:
    """Between two steps of the model's own scheduler lies the same share of the drawn times, whatever its shift."""
    eight = parameters.model_copy(update={"num_inference_steps": 8, "batch_size": 1, "guidance_scale": 1.0})
    generator = load_generator(eight, ("denoiser",))
    state = torch.random.get_rng_state()
    drawn, again, other = (generator.draw_timesteps(20000, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert torch.equal(torch.random.get_rng_state(), state), "times come from the given random numbers alone"
    if name not in FLOWS:
        counts, _ = np.histogram(drawn.numpy(), bins=10, range=(0, 1000))
        assert (int(drawn.min()), int(drawn.max())) == (0, 999)
        assert abs(counts - 2000).max() < 5 * np.sqrt(2000)
        return
    pipeline = plain_pipeline(eight)
    call_directly(pipeline, eight, [1], ONE)
    sigmas = pipeline.scheduler.sigmas
    assert 0 < float(drawn.min()) < float(drawn.max()) == 1000
    shares = np.diff([float((drawn <= 1000 * sigma + 1e-3).float().mean()) for sigma in sigmas.flip(0)])
    # Where a pipeline leaves the steps to its scheduler, the last one covers next to nothing.
    shares = shares[1:] if shares[0] < 0.02 else shares
    np.testing.assert_allclose(shares, 1 / len(shares), atol=0.015)
    if (shift := FAMILIES[name].shift) is not None:
        even = drawn.double() / 1000
        even = even / (shift - (shift - 1) * even)
        assert abs(float(even.mean()) - 0.5) < 0.01


def test_prediction_error_is_the_mean_over_all_elements_of_a_sample(name: str, generator: Generator) -> None:
    latents = latents_like(generator, 3)
    noise = noise_like(latents)
    timesteps = generator.draw_timesteps(3, torch.Generator().manual_seed(2))
    condition = conditions(generator, PROMPTS)
    with torch.no_grad():
        errors = generator.prediction_error(latents, noise, timesteps, condition)
        predicted = generator.predict(generator.add_noise(latents, noise, timesteps), timesteps, condition)
        # A sample is alone in its batch, and beside other prompts.
        alone = [
            generator.prediction_error(
                latents[row : row + 1],
                noise[row : row + 1],
                timesteps[row : row + 1],
                {kind: value[row : row + 1] for kind, value in condition.items()},
            )
            for row in range(3)
        ]
    difference = predicted.double() - generator.target(latents, noise, timesteps).double()
    assert generator.given_frames == FAMILIES[name].given_frames
    if start := generator.given_frames:
        # What the condition fixes is no part of the error, and a change of it changes nothing.
        difference = difference[:, :, start:]
        with torch.no_grad():
            latents[:, :, :start] += 1.0
            assert torch.equal(generator.prediction_error(latents, noise, timesteps, condition), errors)
    assert errors.shape == (3,)
    np.testing.assert_allclose(errors.numpy(), [float((row**2).mean()) for row in difference], rtol=1e-5)
    np.testing.assert_allclose(errors.numpy(), torch.cat(alone).numpy(), rtol=1e-4)


# -- sizes, encoding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "given", "near"), [(name, *one) for name, family in FAMILIES.items() for one in family.rejected]
)
def test_sizes_that_a_model_cannot_make_are_rejected_before_a_clip_is_made(
    name: str, field: str, given: int, near: str, settings: Settings
) -> None:
    wrong = settings[name].model_copy(update={field: given})
    with pytest.raises(InputError, match=rf"generator\.{field}.* {given} is configured.*{near}"):
        load_generator(wrong)
    # A part alone makes no clips.
    load_generator(wrong, ("text_encoder",))


def test_latents_decode_as_the_pipeline_decodes_its_own(name: str, settings: Settings) -> None:
    """Latents are scaled as the denoiser sees them: what the pipeline decodes of them is the autoencoder's mode."""
    parameters = settings[name].model_copy(update={"batch_size": 1, "guidance_scale": 1.0})
    generator = load_generator(parameters, ("autoencoder",))
    pipeline = without_draws_of_latents(plain_pipeline(parameters))
    clips = random_clips(parameters, 1)
    latents = generator.encode_frames(clips)
    assert latents.dtype == torch.float32
    with recorded(pipeline.scheduler) as steps:
        call_directly(pipeline, parameters, [3], ONE)
    packing = packing_of(generator, pipeline, steps[0].sample, seed=3)
    decoded: list[torch.Tensor] = []
    decode = pipeline.vae.decode
    pipeline.vae.decode = lambda given, *rest, **options: decoded.append(given) or decode(given, *rest, **options)
    with recorded(pipeline.scheduler, instead=packing.to_theirs(latents)):
        call_directly(pipeline, parameters, [3], ONE)
    pixels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 255 * 2 - 1
    image = decoded[0].ndim == 4
    with torch.no_grad():
        mode = pipeline.vae.encode(pixels[:, :, 0] if image else pixels).latent_dist.mode()
    start = generator.given_frames  # those are not sampled
    torch.testing.assert_close(
        *(one[:, :, start:] if start else one for one in (decoded[0], mode)), rtol=1e-4, atol=1e-5
    )


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_a_prompt_beyond_what_a_text_encoder_reads_is_said(
    parameters: GeneratorParameters, caplog: pytest.LogCaptureFixture
) -> None:
    generator = load_generator(parameters, ("text_encoder",))
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    tokenizers = [name for name in TOKENIZERS if getattr(pipeline, name, None) is not None]
    limits = [generator.text_limit(name) for name in tokenizers]  # type: ignore[attr-defined]
    limits = [limit for limit in limits if limit < 10_000]  # one reads only what is quoted
    none, one, two = (len(pipeline.tokenizer(balls(count))["input_ids"]) for count in (0, 1, 2))
    least, most = ((limit - none - (one - none)) // (two - one) + 1 for limit in (min(limits), max(limits)))
    with caplog.at_level(logging.WARNING):
        within = encoded(generator, [balls(least), balls(least - 1)])
    assert "of the prompt" not in caplog.text
    assert not torch.allclose(*within), "the last token that is read counts"
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            beyond = encoded(generator, [balls(most + 30) + end for end in (" red", " blue")])
    torch.testing.assert_close(*beyond)
    assert caplog.text.count(f"reads the first {min(limits)} of ") == 2, "once for each prompt"


def balls(count: int) -> str:
    return " ".join(["ball"] * count)


def encoded(generator: Generator, prompts: Sequence[str]) -> list[torch.Tensor]:
    condition = conditions(generator, prompts)
    return [torch.cat([value[row].flatten().float() for value in condition.values()]) for row in range(len(prompts))]


# -- parts, policies --------------------------------------------------------------------------------------------------


def test_parts_alone_do_what_they_are_for_and_encoders_come_and_go(
    generator: Generator, parameters: GeneratorParameters
) -> None:
    clips = sampled(generator, PROMPTS[:2], [1, 2])
    latents = generator.encode_frames(clips)
    condition = conditions(generator, PROMPTS[:2])
    autoencoder = load_generator(parameters, ("autoencoder",))
    assert torch.equal(autoencoder.encode_frames(clips), latents)
    text_encoder = load_generator(parameters, ("text_encoder",))
    again = conditions(text_encoder, PROMPTS[:2])
    assert again.keys() == condition.keys()
    assert all(torch.equal(again[name], value) for name, value in condition.items())
    denoiser = load_generator(parameters, ("denoiser",))
    denoisers, readers = ("transformer", "transformer_2", "unet"), ("text_encoder", "text_encoder_2", "text_encoder_3")
    for part, absent in (
        (autoencoder, (*readers, *denoisers)),
        (text_encoder, denoisers if generator.takes_image else ("vae", *denoisers)),
        (denoiser, ("vae", *readers)),
    ):
        assert all(getattr(part.pipeline, name, None) is None for name in absent)  # type: ignore[attr-defined]
    arguments = (latents, noise_like(latents), generator.draw_timesteps(2, torch.Generator().manual_seed(2)), condition)
    with torch.no_grad():
        assert torch.equal(denoiser.prediction_error(*arguments), generator.prediction_error(*arguments))
    assert denoiser.identity == generator.identity
    trained = randomised(denoiser, denoiser.add_adapter(rank=2, alpha=2.0, targets=None, seed=0))
    with denoiser.encoders():
        changed = sampled(denoiser, PROMPTS[:2], [1, 2])
    assert denoiser.pipeline.vae is None  # type: ignore[attr-defined]
    generator.load_policy(denoiser.policy())
    assert np.array_equal(changed, sampled(generator, PROMPTS[:2], [1, 2]))
    assert not np.array_equal(changed, clips)
    # What the optimiser holds is still what the network uses.
    assert {id(value) for value in trained} <= {id(value) for value in denoiser.denoiser.parameters()}


def randomised(generator: Generator, weights: list[Any], size: float = 0.3) -> list[Any]:
    """Move weights so far that clips change visibly."""
    random = torch.Generator().manual_seed(0)
    for value in weights:
        value.data += size * torch.randn(value.shape, generator=random)
    return weights


def test_plain_diffusers_loads_an_adapter_and_makes_the_same_clip_and_back(
    generator: Generator, parameters: GeneratorParameters, tmp_path: Path
) -> None:
    original = sampled(generator, ONE, [1])
    randomised(generator, generator.add_adapter(rank=2, alpha=7.0, targets=None, seed=0))
    adapter = generator.policy()
    assert isinstance(adapter, Adapter)
    adapter = replace(adapter, provenance={"base": {"family": parameters.family, "path": parameters.path}})
    PolicyDataset(path=str(tmp_path / "policy")).save(adapter)
    generator.load_policy(None)
    assert np.array_equal(original, sampled(generator, ONE, [1]))
    loaded = PolicyDataset(path=str(tmp_path / "policy")).load()
    assert loaded.identity == adapter.identity
    generator.load_policy(loaded)
    ours = sampled(generator, ONE, [1])
    assert not np.array_equal(ours, original)
    assert generator.policy().identity == adapter.identity
    plain = plain_pipeline(parameters)
    load_adapter_directly(plain, tmp_path / "policy")
    batch = ONE * parameters.batch_size
    assert np.array_equal(ours, call_directly(plain, parameters, [1] * len(batch), batch)[:1])


def test_plain_diffusers_loads_a_whole_denoiser_and_makes_the_same_clip(
    generator: Generator, parameters: GeneratorParameters, tmp_path: Path
) -> None:
    original = sampled(generator, ONE, [1])
    if len(generator.denoisers()) > 1:  # type: ignore[attr-defined]
        with pytest.raises(InputError, match="both experts"):
            generator.train_all_weights(reference=False)
        return
    randomised(generator, generator.train_all_weights(reference=False), 0.05)
    tuned = generator.policy()
    PolicyDataset(path=str(tmp_path / "policy")).save(tuned)
    loaded = PolicyDataset(path=str(tmp_path / "policy")).load()
    assert loaded.identity == tuned.identity
    generator.load_policy(loaded)
    ours = sampled(generator, ONE, [1])
    assert not np.array_equal(ours, original)
    plain = plain_pipeline(parameters)
    network = type(generator.denoiser).from_pretrained(tmp_path / "policy", subfolder=tuned.component)  # type: ignore[attr-defined]
    setattr(plain, tuned.component, network)
    batch = ONE * parameters.batch_size
    assert np.array_equal(ours, call_directly(plain, parameters, [1] * len(batch), batch)[:1])
    generator.load_policy(None)
    assert np.array_equal(original, sampled(generator, ONE, [1]))


# -- training ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill looks like from inside."""


class Training:
    """A training of three steps on two pairs."""

    def __init__(self, parameters: GeneratorParameters) -> None:
        self._parameters = parameters
        whole = load_generator(parameters)
        latents = whole.encode_frames(random_clips(parameters, 4))
        self._data = PairData(
            [TrainingPair(f"pair {row}", PROMPTS[row], f"w{row}", f"l{row}") for row in range(2)],
            {f"{'wl'[row % 2]}{row // 2}": latents[row] for row in range(4)},
            {prompt: conditions(whole, [prompt]) for prompt in PROMPTS[:2]},
        )

    def run(self, checkpoint: Path | None = None, dtype: str = "float32", **changes: Any) -> tuple[Policy, Any]:
        generator = load_generator(self._parameters.model_copy(update={"dtype": dtype}), ("denoiser",))
        given = {"beta": 10.0, "steps": 3, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 1, "threads": 1}
        settings = PreferenceTrainingParameters(**(given | {"lora": LoRAParameters(rank=2, alpha=4.0)} | changes))
        log = train_on_pairs(generator, self._data, settings, checkpoint=checkpoint)
        return generator.policy(), log


def test_training_begins_at_log_two_and_resumes_exactly(
    parameters: GeneratorParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, log_row = Training(parameters), loop.log_row

    def killing(step: int, *rest: object) -> dict[str, float]:
        if step > 2:
            raise Killed
        return log_row(step, *rest)  # type: ignore[arg-type]

    policy, log = training.run(checkpoint_every=2)
    assert log["loss"][0] == torch.tensor(2.0).log().item()
    assert log["loss"][1] != log["loss"][0]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "log_row", killing)
        with pytest.raises(Killed):
            training.run(tmp_path / "state" / "training.safetensors", checkpoint_every=2)
    resumed, again = training.run(tmp_path / "state" / "training.safetensors", checkpoint_every=2)
    assert resumed.identity == policy.identity
    assert again.equals(log)
    # Activations that are computed again change nothing, and half precision begins at the same loss.
    spared, other = training.run(gradient_checkpointing=True)
    assert largest_difference(spared, policy) < 1e-5
    np.testing.assert_allclose(other["loss"], log["loss"], rtol=1e-5)
    _, half = training.run(dtype="bfloat16", steps=1)
    assert half["loss"][0] == torch.tensor(2.0).log().item()


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_changes_no_clip(
    offload: str, generator: Generator, parameters: GeneratorParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers_pipeline, "can_offload", lambda device: True)
    moved = accelerate.cpu_offload
    # diffusers numbers the device, and accelerate takes cpu:0 for another than cpu.
    monkeypatch.setattr(
        accelerate, "cpu_offload", lambda model, device, **rest: moved(model, torch.device("cpu"), **rest)
    )
    spared = load_generator(parameters.model_copy(update={"offload": offload}))
    clips = sampled(generator, ONE, [1])
    # Matrix products round by where a weight lies in memory, and offloading moves it.
    assert np.abs(sampled(spared, ONE, [1]).astype(int) - clips).max() <= 1
    assert spared.identity == generator.identity
    torch.testing.assert_close(spared.encode_frames(clips), generator.encode_frames(clips), rtol=0, atol=1e-5)
    for name, value in conditions(generator, ONE).items():
        torch.testing.assert_close(conditions(spared, ONE)[name], value, rtol=0, atol=1e-5)
    assert all(hasattr(part, "_hf_hook") for part in spared.denoisers().values())  # type: ignore[attr-defined]


# -- identity ---------------------------------------------------------------------------------------------------------


def test_identities_change_with_weights_and_settings_and_with_nothing_else(
    generator: Generator, parameters: GeneratorParameters, tmp_path: Path
) -> None:
    identity = sampling_identity(parameters)
    assert generator.identity == identity
    copied = tmp_path / "copy"
    shutil.copytree(parameters.path, copied, copy_function=os.link)
    other = parameters.model_copy(update={"path": str(copied), "fps": 4.0, "offload": "model"})
    assert sampling_identity(other) == identity
    for change in (
        {"num_inference_steps": 4},
        {"guidance_scale": 2.0},
        {"batch_size": 3},
        {"threads": 2},
        {"dtype": "bfloat16"},
        {"height": 96},
        {"num_frames": 33},
        {"vae_tiling": True},
    ):
        assert sampling_identity(parameters.model_copy(update=change)) != identity, change
    seen = {identity}
    for file in sorted(copied.rglob("*.safetensors")) + sorted(copied.rglob("*config.json")):
        content = bytearray(file.read_bytes())
        file.unlink()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen.add(sampling_identity(other))
        file.write_bytes(content)
    assert len(seen) == 1 + len(list(copied.rglob("*.safetensors"))) + len(list(copied.rglob("*config.json")))
