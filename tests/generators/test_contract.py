"""Every family behind the contract, against the pipeline and the scheduler of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_models import PROMPTS
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, folder_identity, sampling_identity, weights_identity
from vr_pipeline.generators.policy import Adapter, FullWeights, Policy
from vr_pipeline.micro_world.patch_vae import PatchVAE
from vr_pipeline.storage.hub import is_local


def plain_pipeline(parameters: GeneratorParameters) -> Any:
    """The pipeline as a user of diffusers would load it."""
    from diffusers import DiffusionPipeline

    own = {"vae": PatchVAE.from_pretrained(f"{parameters.path}/vae")} if parameters.family == "micro_world" else {}
    pipeline = DiffusionPipeline.from_pretrained(parameters.path, **own)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_directly(pipeline: Any, parameters: GeneratorParameters, seeds: list[int], prompts: list[str]) -> np.ndarray:
    """Sample with the pipeline of diffusers alone, as its documentation shows; uint8 clips."""
    own: dict[str, Any] = {}
    if parameters.family in ("cogvideox", "micro_world"):
        own = {"max_sequence_length": pipeline.transformer.config.max_text_seq_length}
    if parameters.family != "sdxl":
        own["num_frames"] = parameters.num_frames
    made = pipeline(
        prompt=prompts,
        height=parameters.height,
        width=parameters.width,
        num_inference_steps=parameters.num_inference_steps,
        guidance_scale=parameters.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
        **own,
    )
    clips = made.images[:, None] if parameters.family == "sdxl" else made.frames
    return np.round(clips * 255).astype(np.uint8)


def latents_like(generator: Generator, count: int, seed: int = 0) -> torch.Tensor:
    settings = generator.parameters
    shape = (count, settings.num_frames, settings.height, settings.width, 3)
    clips = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return generator.encode_frames(clips)


def test_sampling_equals_the_pipeline_of_diffusers(generator: Generator, parameters: GeneratorParameters) -> None:
    ours = generator.sample(PROMPTS[:2], [7, 8])
    theirs = call_directly(plain_pipeline(parameters), parameters, [7, 8], list(PROMPTS[:2]))
    assert ours.dtype == np.uint8
    assert ours.shape == (2, parameters.num_frames, parameters.height, parameters.width, 3)
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours, generator.sample(PROMPTS[:2], [7, 9]))


def test_a_clip_does_not_depend_on_how_many_others_are_asked_for(generator: Generator) -> None:
    together = generator.sample(PROMPTS, [1, 2, 3])
    assert np.array_equal(together[2:], generator.sample(PROMPTS[2:], [3]))
    assert np.array_equal(together[:1], generator.sample(PROMPTS[:1], [1]))


def test_sampling_leaves_the_global_random_state_alone(generator: Generator) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = generator.sample(PROMPTS[:1], [1])
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(first, generator.sample(PROMPTS[:1], [1]))


VELOCITY_FAMILIES = ["cogvideox_2b", "cogvideox_5b", "micro_world"]


@pytest.mark.parametrize("name", VELOCITY_FAMILIES)
def test_noising_and_target_of_cogvideox_equal_the_scheduler(
    name: str, settings: dict[str, GeneratorParameters]
) -> None:
    generator = load_generator(settings[name])
    scheduler = generator.pipeline.scheduler  # type: ignore[attr-defined]
    count = scheduler.config.num_train_timesteps
    timesteps = torch.tensor([0, 1, count // 3, count // 2, count - 2, count - 1])
    latents = latents_like(generator, len(timesteps))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    noised = generator.add_noise(latents, noise, timesteps)
    target = generator.target(latents, noise, timesteps)
    torch.testing.assert_close(noised, scheduler.add_noise(latents, noise, timesteps), rtol=0, atol=1e-6)
    torch.testing.assert_close(target, scheduler.get_velocity(latents, noise, timesteps), rtol=0, atol=1e-6)

    # x0 and the noise come back from x_t and v: the rotation by which v is defined is its own inverse, transposed.
    cumulative = scheduler.alphas_cumprod[timesteps].double().view(-1, 1, 1, 1, 1)
    signal, deviation = cumulative.sqrt(), (1 - cumulative).sqrt()
    torch.testing.assert_close((signal * noised - deviation * target).float(), latents, rtol=0, atol=2e-5)
    torch.testing.assert_close((signal * target + deviation * noised).float(), noise, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", VELOCITY_FAMILIES)
def test_the_last_timestep_of_cogvideox_has_no_signal(name: str, settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings[name])
    latents = latents_like(generator, 1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    last = torch.tensor([generator.pipeline.scheduler.config.num_train_timesteps - 1])  # type: ignore[attr-defined]
    assert torch.equal(generator.add_noise(latents, noise, last), noise)
    assert torch.equal(generator.target(latents, noise, last), -latents)


def test_noising_and_target_of_a_flow_equal_the_scheduler(settings: dict[str, GeneratorParameters]) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    generator = load_generator(settings["wan"])
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    timesteps = scheduler.timesteps[[0, 1, 300, 700, 999]]
    latents = latents_like(generator, len(timesteps))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    noised = generator.add_noise(latents, noise, timesteps)
    target = generator.target(latents, noise, timesteps)
    torch.testing.assert_close(noised, scheduler.scale_noise(latents, timesteps, noise), rtol=0, atol=1e-6)
    assert torch.equal(noised[0], noise[0])

    # A perfect velocity takes the scheduler from one noise level to the next along the same straight line.
    scheduler.set_timesteps(4)
    sigmas = scheduler.sigmas
    for step, now in enumerate(scheduler.timesteps):
        here = generator.add_noise(latents, noise, now.expand(len(latents)))
        there = scheduler.step(target, now, here, return_dict=False)[0]
        expected = (1 - sigmas[step + 1]) * latents + sigmas[step + 1] * noise
        torch.testing.assert_close(there, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(there, latents, rtol=0, atol=1e-5)


def test_noising_and_target_of_sdxl_equal_the_schedulers(settings: dict[str, GeneratorParameters]) -> None:
    from diffusers import DDPMScheduler

    generator = load_generator(settings["sdxl"])
    euler = generator.pipeline.scheduler  # type: ignore[attr-defined]
    ddpm = DDPMScheduler.from_config(euler.config)
    timesteps = torch.tensor([0, 250, 999])
    latents = latents_like(generator, len(timesteps))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    noised = generator.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(noised, ddpm.add_noise(latents, noise, timesteps), rtol=0, atol=1e-6)
    for row, step in enumerate(timesteps):
        # With the target for a prediction, the scheduler's estimate of x0 is x0.
        restored = ddpm.step(generator.target(latents, noise, timesteps)[row], step, noised[row]).pred_original_sample
        bounded = latents[row].clamp(-1, 1) if ddpm.config.clip_sample else latents[row]
        torch.testing.assert_close(restored, bounded, rtol=0, atol=1e-4)
    # The Euler scheduler's own scale, brought back as it does before the network.
    euler.set_timesteps(10)
    sampled = euler.timesteps[[3]]
    sigma = euler.sigmas[3]
    ours = generator.add_noise(latents[:1], noise[:1], sampled.long())
    theirs = (latents[:1] + sigma * noise[:1]) / (sigma**2 + 1).sqrt()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*VELOCITY_FAMILIES, "sdxl"])
def test_timesteps_cover_the_whole_range_evenly(name: str, settings: dict[str, GeneratorParameters]) -> None:
    drawn = load_generator(settings[name]).draw_timesteps(20000, torch.Generator().manual_seed(0)).numpy()
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1000))
    assert drawn.min() == 0
    assert drawn.max() == 999
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)


def test_times_of_a_flow_are_those_of_its_shifted_schedule(settings: dict[str, GeneratorParameters]) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    drawn = load_generator(settings["wan"]).draw_timesteps(20000, torch.Generator().manual_seed(0))
    schedule = FlowMatchEulerDiscreteScheduler(shift=3.0).timesteps
    assert (drawn.unique()[:, None] - schedule[None]).abs().min(dim=1).values.max() < 1e-3
    assert drawn.max() == 1000
    assert float(drawn.min()) == pytest.approx(float(schedule.min()))
    assert abs(float(drawn.mean()) - float(schedule.mean())) < 5


@pytest.mark.parametrize("name", ["micro_world", "wan", "sdxl"])
def test_times_come_from_the_given_random_numbers_alone(name: str, settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings[name], ("autoencoder",))
    state = torch.random.get_rng_state()
    first, again, other = (generator.draw_timesteps(20, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("usual", [True, False], ids=["usual size", "another size"])
def test_prediction_equals_a_step_of_the_pipeline(parameters: GeneratorParameters, usual: bool) -> None:
    """Our conditional prediction is what the pipeline feeds its scheduler, positions and extra conditions included.

    At another size than the model's own too: rotary positions and the sizes that are conditions of SDXL follow it.
    """
    if not usual:
        frames = {"sdxl": 1, "micro_world": 4, "wan": 5}.get(parameters.family, 17)
        parameters = parameters.model_copy(update={"height": 32, "width": 48, "num_frames": frames})
    generator = load_generator(parameters)
    pipeline = load_generator(parameters).pipeline  # type: ignore[attr-defined]
    network = pipeline.unet if parameters.family == "sdxl" else pipeline.transformer
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    forward = network.forward

    def spy(*arguments: Any, **keywords: Any) -> Any:
        result = forward(*arguments, **keywords)
        noised = arguments[0] if arguments else keywords["hidden_states"]
        timesteps = arguments[1] if arguments else keywords["timestep"]
        # Under guidance the conditional half comes last.
        seen.append((noised[-2:], timesteps.expand(len(noised))[-2:], result[0][-2:]))
        return result

    network.forward = spy
    call_directly(pipeline, parameters, [3, 4], list(PROMPTS[:2]))
    if parameters.family == "wan":
        # This pipeline calls the network twice, first with the prompt and then without.
        seen = seen[::2]
    condition = generator.encode_prompts(PROMPTS[:2])
    assert len(seen) == parameters.num_inference_steps
    with torch.no_grad():
        for noised, timesteps, expected in seen:
            predicted = generator.predict(noised, timesteps, condition)
            torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)


def test_prediction_error_is_the_mean_over_all_elements_of_a_sample(generator: Generator) -> None:
    latents = latents_like(generator, 3)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    timesteps = generator.draw_timesteps(3, torch.Generator().manual_seed(2))
    condition = generator.encode_prompts(PROMPTS)
    with torch.no_grad():
        errors = generator.prediction_error(latents, noise, timesteps, condition)
        predicted = generator.predict(generator.add_noise(latents, noise, timesteps), timesteps, condition)
    difference = predicted.double() - generator.target(latents, noise, timesteps).double()
    expected = [float((row**2).mean()) for row in difference]
    assert errors.shape == (3,)
    np.testing.assert_allclose(errors.numpy(), expected, rtol=1e-5)


def test_frames_survive_encoding_as_far_as_the_autoencoder_allows(settings: dict[str, GeneratorParameters]) -> None:
    from vr_pipeline.micro_world.clips import render_clips

    generator = load_generator(settings["micro_world"])
    clips = render_clips(8, seed=1, purpose="round trip").frames
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    decoded = pipeline.decode_latents(generator.encode_frames(clips))
    back = pipeline.video_processor.postprocess_video(video=decoded, output_type="np")
    error = np.sqrt(((back - clips / 255.0) ** 2).mean())
    assert error < 0.3 * (clips / 255.0).std()


@pytest.mark.parametrize("name", ["cogvideox_2b", "cogvideox_5b", "wan", "sdxl"])
def test_latents_decode_as_the_pipeline_decodes_its_own(name: str, settings: dict[str, GeneratorParameters]) -> None:
    """Latents are scaled as the denoiser sees them: undoing what the pipeline does before decoding gives the mode."""
    parameters = settings[name]
    generator = load_generator(parameters)
    shape = (2, parameters.num_frames, parameters.height, parameters.width, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    vae = generator.pipeline.vae  # type: ignore[attr-defined]
    pixels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 255 * 2 - 1
    with torch.no_grad():
        mode = vae.encode(pixels[:, :, 0] if name == "sdxl" else pixels).latent_dist.mean
    latents = generator.encode_frames(clips)
    if name == "wan":
        mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)
        inverse_deviation = 1.0 / torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)
        restored = latents / inverse_deviation + mean
    elif name == "sdxl":
        restored = latents / vae.config.scaling_factor
    else:
        assert latents.shape == (2, 3, 4, 4, 4)
        restored = latents.permute(0, 2, 1, 3, 4) / vae.config.scaling_factor
    assert latents.dtype == torch.float32
    torch.testing.assert_close(restored, mode, rtol=1e-5, atol=1e-5)


def test_identities_change_with_weights_and_settings_and_with_nothing_else(
    settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    import shutil

    parameters = settings["micro_world"]
    identity = sampling_identity(parameters)
    assert load_generator(parameters).identity == identity
    copy = tmp_path / "copy"
    shutil.copytree(parameters.path, copy)
    assert sampling_identity(parameters.model_copy(update={"path": str(copy), "fps": 4.0})) == identity
    for change in (
        {"num_inference_steps": 4},
        {"guidance_scale": 2.0},
        {"batch_size": 3},
        {"threads": 2},
        {"dtype": "bfloat16"},
    ):
        assert sampling_identity(parameters.model_copy(update=change)) != identity, change
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert sampling_identity(parameters.model_copy(update={"path": str(copy)})) != identity


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_policies_are_told_apart_by_their_weights_and_what_they_change(kind: str) -> None:
    tensors = {"transformer.a": torch.arange(4.0), "transformer.b": torch.ones(2, 3)}

    def policy(provenance: str = "", **changes: Any) -> Policy:
        if kind == "full":
            return FullWeights(**{"tensors": tensors, "config": {}, "component": "transformer", "base": "x"} | changes)
        config = {"r": 2, "lora_alpha": changes.pop("alpha", 4.0)}
        return Adapter(**{"tensors": tensors, "config": config, "base": "x"} | changes, provenance={"by": provenance})

    identity = policy().identity
    assert policy(provenance="another run").identity == identity
    assert policy(tensors=dict(reversed(tensors.items()))).identity == identity
    changed = [
        policy(base="y"),
        policy(tensors=tensors | {"transformer.b": torch.ones(2, 3).index_fill(0, torch.tensor([1]), 2.0)}),
        policy(tensors={"transformer.a": tensors["transformer.a"], "transformer.c": tensors["transformer.b"]}),
    ]
    changed += [policy(alpha=8.0)] if kind == "adapter" else []
    assert len({identity, *(other.identity for other in changed)}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("owner/model", False),
        ("model", True),
        ("models/of/mine", True),
        ("./owner/model", True),
        ("../model", True),
        ("~/model", True),
        ("/models/model", True),
        ("data/model", True),
    ],
)
def test_only_owner_and_name_can_mean_a_model_on_the_hub(path: str, local: bool) -> None:
    assert is_local(path) is local


def test_a_name_on_the_hub_needs_its_revision_for_an_identity() -> None:
    parameters = GeneratorParameters(family="cogvideox", path="owner/model", revision="abc")
    assert weights_identity(parameters) != weights_identity(parameters.model_copy(update={"revision": "abd"}))


def test_a_missing_folder_and_a_folder_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        weights_identity(GeneratorParameters(family="cogvideox", path=str(tmp_path / "nothing")))
    (tmp_path / "pickled.bin").write_bytes(b"weights")
    with pytest.raises(InputError, match="no model weights"):
        folder_identity(tmp_path)


def test_a_model_on_the_hub_without_a_commit_is_refused() -> None:
    with pytest.raises(InputError, match="commit"):
        weights_identity(GeneratorParameters(family="cogvideox", path="owner/model"))
    with pytest.raises(InputError, match="folder does not exist"):
        weights_identity(GeneratorParameters(family="cogvideox", path="./nowhere/model", revision="abc"))


@pytest.mark.parametrize(("name", "expected"), [("wan", torch.float32), ("cogvideox_5b", torch.bfloat16)])
def test_precision_is_that_of_the_configuration_but_for_delicate_autoencoders(
    name: str, expected: torch.dtype, settings: dict[str, GeneratorParameters]
) -> None:
    generator = load_generator(settings[name].model_copy(update={"dtype": "bfloat16"}))
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    weights = dict(generator.denoiser.named_parameters())
    assert {value.dtype for key, value in weights.items() if key.endswith("attn1.to_q.weight")} == {torch.bfloat16}
    assert pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.vae.dtype == expected
    assert latents_like(generator, 1).dtype == torch.float32
    assert generator.sample(["a ball"], [0]).shape[1] == settings[name].num_frames


def test_tiles_are_a_choice_that_changes_the_identity(settings: dict[str, GeneratorParameters]) -> None:
    tiled = settings["cogvideox_2b"].model_copy(update={"vae_tiling": True})
    generator = load_generator(tiled)
    assert generator.pipeline.vae.use_tiling  # type: ignore[attr-defined]
    assert not load_generator(settings["cogvideox_2b"]).pipeline.vae.use_tiling  # type: ignore[attr-defined]
    assert generator.identity != sampling_identity(settings["cogvideox_2b"])
    whole = load_generator(settings["cogvideox_2b"])
    clips = whole.sample(PROMPTS[:1], [1])
    # These clips are smaller than a tile; with smaller tiles than clips both ways through the autoencoder change.
    assert np.array_equal(generator.sample(PROMPTS[:1], [1]), clips)
    for part in (generator, load_generator(tiled, ("autoencoder",))):
        vae = part.pipeline.vae  # type: ignore[attr-defined]
        vae.enable_tiling(16, 16, 0.5, 0.5)
        assert part.encode_frames(clips).shape == whole.encode_frames(clips).shape
        assert not torch.equal(part.encode_frames(clips), whole.encode_frames(clips))
    assert not np.array_equal(generator.sample(PROMPTS[:1], [1]), clips)


@pytest.mark.parametrize(
    ("name", "field", "given", "near"),
    [
        ("cogvideox_2b", "num_frames", 5, "1 or 9"),
        ("cogvideox_2b", "num_frames", 8, "1 or 9"),
        ("cogvideox_5b", "num_frames", 13, "9 or 17"),
        ("wan", "num_frames", 80, "77 or 81"),
        ("wan", "height", 40, "32 or 48"),
        ("cogvideox_5b", "width", 24, "16 or 32"),
        ("wan", "width", 8, "Choose 16"),
        ("wan", "num_frames", 129, "Choose a smaller num_frames"),
        ("wan", "width", 528, "Choose a smaller width"),
    ],
)
def test_sizes_that_a_model_cannot_make_are_refused_before_a_clip_is_made(
    name: str, field: str, given: int, near: str, settings: dict[str, GeneratorParameters]
) -> None:
    wrong = settings[name].model_copy(update={field: given})
    with pytest.raises(InputError, match=rf"generator\.{field}.* {given} is asked for.*{near}"):
        load_generator(wrong)
    # A part alone makes no clips.
    load_generator(wrong, ("text_encoder",))


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="cogvideox"):
        load_generator(GeneratorParameters(family="imaginary", path="owner/model"))


def test_parts_alone_do_what_they_are_for_and_encoders_come_and_go(
    generator: Generator, parameters: GeneratorParameters
) -> None:
    clips = generator.sample(PROMPTS[:2], [1, 2])
    latents = generator.encode_frames(clips)
    condition = generator.encode_prompts(PROMPTS[:2])

    autoencoder = load_generator(parameters, ("autoencoder",))
    assert torch.equal(autoencoder.encode_frames(clips), latents)
    text_encoder = load_generator(parameters, ("text_encoder",))
    again = text_encoder.encode_prompts(PROMPTS[:2])
    assert again.keys() == condition.keys()
    assert all(torch.equal(again[name], value) for name, value in condition.items())

    denoiser = load_generator(parameters, ("denoiser",))
    for pipeline, absent in (
        (autoencoder.pipeline, ("text_encoder", "transformer", "unet")),  # type: ignore[attr-defined]
        (text_encoder.pipeline, ("vae", "transformer", "unet")),  # type: ignore[attr-defined]
        (denoiser.pipeline, ("vae", "text_encoder", "text_encoder_2")),  # type: ignore[attr-defined]
    ):
        assert all(getattr(pipeline, name, None) is None for name in absent)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    arguments = (latents, noise, generator.draw_timesteps(2, torch.Generator().manual_seed(2)), condition)
    with torch.no_grad():
        assert torch.equal(denoiser.prediction_error(*arguments), generator.prediction_error(*arguments))
    assert denoiser.identity == generator.identity

    for value in (trained := denoiser.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)):
        value.data = 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    with denoiser.encoders():
        changed = denoiser.sample(PROMPTS[:2], [1, 2])
    assert denoiser.pipeline.vae is None  # type: ignore[attr-defined]
    policy = denoiser.policy()
    generator.load_policy(policy)
    assert np.array_equal(changed, generator.sample(PROMPTS[:2], [1, 2]))
    assert not np.array_equal(changed, clips)
    # What the optimiser holds is still what the network uses.
    assert {id(value) for value in trained} <= {id(value) for value in denoiser.denoiser.parameters()}


def test_the_noise_that_a_flow_starts_from_is_that_of_the_seed(settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings["wan"])
    shape = generator.encode_frames(generator.sample(PROMPTS[:1], [5])).shape[1:]
    seen: list[torch.Tensor] = []
    network = generator.denoiser
    forward = network.forward

    def spy(*arguments: Any, **keywords: Any) -> Any:
        seen.append((arguments[0] if arguments else keywords["hidden_states"]).clone())
        return forward(*arguments, **keywords)

    network.forward = spy  # type: ignore[method-assign]
    generator.sample(PROMPTS[:2], [5, 6])
    first = seen[0][:2].float()
    assert torch.equal(first, torch.stack([generator.initial_noise(shape, seed) for seed in (5, 6)]))
    with pytest.raises(InputError, match="no straight path from a clip to the noise"):
        load_generator(settings["micro_world"]).initial_noise(shape, 5)
