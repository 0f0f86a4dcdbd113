"""Offload: parts wait in the CPU's memory behind hooks. Here the device they are brought to is the CPU as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import accelerate
import numpy as np
import pytest
import torch

from tiny_models import PROMPTS
from vr_pipeline.generators import diffusers_pipeline as pipeline
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Frames, Generator
from vr_pipeline.generators.policy import Policy

SEEDS = [1, 2]


@dataclass(frozen=True)
class Expected:
    """What a generator without offload makes."""

    original: Frames
    latents: torch.Tensor
    embeddings: torch.Tensor
    policies: tuple[tuple[Policy, Frames], ...]


@pytest.fixture(scope="module")
def expected(settings: dict[str, GeneratorParameters]) -> Callable[[str], Expected]:
    """By the name of a tiny model; made once."""
    made: dict[str, Expected] = {}

    def make(name: str) -> Expected:
        generator = load_generator(settings[name])
        clips = generator.sample(PROMPTS[:2], SEEDS)
        policies = []
        for prepare in (
            lambda: generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0),
            lambda: generator.train_all_weights(reference=False),
        ):
            random = torch.Generator().manual_seed(0)
            for value in prepare():
                value.data += 0.1 * torch.randn(value.shape, generator=random)
            policies.append((generator.policy(), generator.sample(PROMPTS[:2], SEEDS)))
        generator.load_policy(None)
        embeddings = generator.encode_prompts(PROMPTS[:2])["prompt_embeddings"]
        return Expected(clips, generator.encode_frames(clips), embeddings, tuple(policies))

    return lambda name: made[name] if name in made else made.setdefault(name, make(name))


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the CPU for a device with memory of its own."""
    monkeypatch.setattr(pipeline, "can_offload", lambda device: True)
    offload = accelerate.cpu_offload
    # diffusers numbers the device, and accelerate takes cpu:0 for another than cpu.
    monkeypatch.setattr(
        accelerate, "cpu_offload", lambda model, device, **rest: offload(model, torch.device("cpu"), **rest)
    )


def places(generator: Generator) -> set[str]:
    return {value.device.type for value in generator.denoiser.parameters()}


@pytest.mark.parametrize("name", ["cogvideox_5b"])
@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.usefixtures("spared")
def test_offload_changes_no_clip_latent_or_policy(
    name: str, offload: str, settings: dict[str, GeneratorParameters], expected: Callable[[str], Expected]
) -> None:
    right = expected(name)
    generator = load_generator(settings[name].model_copy(update={"offload": offload}))
    assert generator.identity == load_generator(settings[name], ()).identity
    assert np.array_equal(generator.sample(PROMPTS[:2], SEEDS), right.original)
    for policy, clips in right.policies:
        generator.load_policy(policy)
        assert np.array_equal(generator.sample(PROMPTS[:2], SEEDS), clips)
        assert not np.array_equal(clips, right.original)
        assert generator.policy().identity == policy.identity
        # What the policy brought along waits behind hooks too.
        assert hasattr(generator.denoiser, "_hf_hook")
        assert places(generator) == {"meta" if offload == "sequential" else "cpu"}
    generator.load_policy(None)
    assert np.array_equal(generator.sample(PROMPTS[:2], SEEDS), right.original)
    assert torch.equal(generator.encode_frames(right.original), right.latents)
    assert torch.equal(generator.encode_prompts(PROMPTS[:2])["prompt_embeddings"], right.embeddings)


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.usefixtures("spared")
def test_parts_alone_are_on_the_device_and_training_goes_on_with_its_own_weights(
    offload: str, settings: dict[str, GeneratorParameters], expected: Callable[[str], Expected]
) -> None:
    right, parameters = expected("cogvideox_5b"), settings["cogvideox_5b"].model_copy(update={"offload": offload})
    assert torch.equal(load_generator(parameters, ("autoencoder",)).encode_frames(right.original), right.latents)
    generator = load_generator(parameters, ("denoiser",))
    trained = generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)
    policy, clips = right.policies[0]
    random = torch.Generator().manual_seed(0)
    for value in trained:
        value.data += 0.1 * torch.randn(value.shape, generator=random)
    assert not hasattr(generator.denoiser, "_hf_hook")
    with generator.encoders():
        # The encoders are spared memory as configured; the weights in training stay the tensors the optimiser holds.
        assert hasattr(generator.pipeline.text_encoder, "_hf_hook")  # type: ignore[attr-defined]
        assert np.array_equal(generator.sample(PROMPTS[:2], SEEDS), clips)
        assert generator.policy().identity == policy.identity
    assert not hasattr(generator.denoiser, "_hf_hook")
    assert places(generator) == {"cpu"}
    used = {id(value) for value in generator.denoiser.parameters()}
    assert {id(value) for value in trained} <= used
    assert generator.policy().identity == policy.identity


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_on_a_cpu_there_is_nothing_to_offload_from(
    offload: str, settings: dict[str, GeneratorParameters], expected: Callable[[str], Expected]
) -> None:
    generator = load_generator(settings["cogvideox_5b"].model_copy(update={"offload": offload}))
    assert not hasattr(generator.denoiser, "_hf_hook")
    assert np.array_equal(generator.sample(PROMPTS[:2], SEEDS), expected("cogvideox_5b").original)
