"""The latent reward's network: the generator's own first blocks, exact gradients, and a folder that comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_models import PROMPTS
from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Condition
from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
from vr_pipeline.generators.latent_reward import (
    SETTINGS_FILE,
    WEIGHTS_FILE,
    LatentReward,
    LatentRewardNetworkParameters,
    LatentRewardSettings,
)

TRANSFORMERS = ("cogvideox_2b", "cogvideox_5b", "micro_world", "wan")
BLOCKS = {"wan": "blocks"}


@pytest.fixture(scope="module")
def generators(settings: dict[str, GeneratorParameters]) -> dict[str, PipelineGenerator]:
    return {name: load_generator(settings[name]) for name in TRANSFORMERS}  # type: ignore[misc]


@pytest.fixture(params=TRANSFORMERS)
def transformer(request: pytest.FixtureRequest, generators: dict[str, PipelineGenerator]) -> PipelineGenerator:
    found = generators[request.param]
    found.load_policy(None)
    return found


def new_reward(generator: PipelineGenerator, *, seed: int = 3, **network: Any) -> LatentReward:
    return LatentReward(
        generator,
        LatentRewardSettings(
            dimensions=("motion", "text"),
            network=LatentRewardNetworkParameters(**({"blocks": 1} | network)),
            base=generator.weights_identity,
            provenance={"training": "of a test", "pairs": 3},
        ),
        seed,
    )


def inputs(generator: PipelineGenerator, count: int = 2) -> tuple[torch.Tensor, torch.Tensor, Condition]:
    given = generator.parameters
    shape = (count, given.num_frames, given.height, given.width, 3)
    latents = generator.encode_frames(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    timesteps = generator.timesteps_at(torch.tensor([0.2, 0.7]))
    return generator.add_noise(latents, noise, timesteps), timesteps, generator.encode_prompts(PROMPTS[:count])


def after_block(generator: PipelineGenerator, count: int, given: tuple[Any, ...]) -> torch.Tensor:
    """Hidden states after a block, in a forward pass of the whole denoiser."""
    seen: list[Any] = []
    blocks = getattr(generator.denoiser, BLOCKS.get(generator.parameters.family, "transformer_blocks"))
    handle = blocks[count - 1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        with torch.no_grad():
            generator.predict(*given)
    finally:
        handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


@pytest.mark.parametrize("count", [1, 2])
def test_hidden_states_are_those_of_the_whole_denoiser(transformer: PipelineGenerator, count: int) -> None:
    given = inputs(transformer)
    expected = after_block(transformer, count, given)
    found = new_reward(transformer, blocks=count).blocks.hidden(*given)
    assert torch.equal(found, expected)


def test_a_policy_changes_neither_the_blocks_nor_is_it_changed(transformer: PipelineGenerator) -> None:
    given = inputs(transformer)
    expected, seed = after_block(transformer, 1, given), 5
    for weight in transformer.add_adapter(rank=2, alpha=2.0, targets=None, seed=seed):
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        adapted = transformer.predict(*given)
    policy = transformer.policy().identity
    reward = new_reward(transformer, lora=LoRAParameters(rank=2, alpha=2.0))
    assert torch.equal(reward.blocks.hidden(*given), expected)
    with torch.no_grad():
        for weight in reward.weights():
            weight.add_(0.1)
        assert not torch.equal(reward.blocks.hidden(*given), expected)
        assert torch.equal(transformer.predict(*given), adapted)
    assert transformer.policy().identity == policy


def test_blocks_are_the_originals_where_all_weights_are_a_policy(generators: dict[str, PipelineGenerator]) -> None:
    generator = generators["micro_world"]
    generator.load_policy(None)
    given = inputs(generator)
    expected = after_block(generator, 2, given)
    with torch.no_grad():
        for weight in generator.train_all_weights(reference=False):
            weight.mul_(1.1)
    try:
        assert torch.equal(new_reward(generator, blocks=2).blocks.hidden(*given), expected)
    finally:
        generator.load_policy(None)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_gradients_with_respect_to_latents_equal_finite_differences(
    transformer: PipelineGenerator, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Wan computes some norms in single precision, in which differences say nothing.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    reward = new_reward(transformer, pooling=pooling)
    for part in (reward.blocks.network, reward.head):
        part.double()
    noised, timesteps, condition = inputs(transformer)
    noised = noised.double().requires_grad_()
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((reward.scores(noised, timesteps, condition) @ weights).sum(), noised)
    assert gradient.abs().max() > 0
    step, random = 1e-5, torch.Generator().manual_seed(2)
    for _ in range(3):
        direction = torch.randn(noised.shape, generator=random, dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (
                (reward.scores(noised + sign * step * direction, timesteps, condition) @ weights).sum()
                for sign in (1, -1)
            )
        torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-9)


def test_training_reaches_every_weight_that_is_kept_and_no_other(transformer: PipelineGenerator) -> None:
    for lora in (None, LoRAParameters(rank=2, alpha=2.0)):
        reward = new_reward(transformer, lora=lora)
        reward.scores(*inputs(transformer)).square().sum().backward()
        trained = {id(weight) for weight in reward.weights()}
        assert all(weight.grad is not None for weight in reward.weights())
        everything = [*reward.blocks.network.parameters(), *reward.head.parameters()]
        assert all(weight.grad is None for weight in everything if id(weight) not in trained)
    assert len(reward.weights()) < len(everything)


@pytest.mark.parametrize("lora", [None, LoRAParameters(rank=2, alpha=2.0)])
def test_a_folder_gives_the_same_reward(generators: dict[str, PipelineGenerator], tmp_path: Path, lora: Any) -> None:
    generator = generators["wan"]
    reward = new_reward(generator, lora=lora)
    with torch.no_grad():
        for number, weight in enumerate(reward.weights()):
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    reward.save(tmp_path)
    # Only the denoiser is loaded, as in training.
    loaded = LatentReward.load(tmp_path, load_generator(generator.parameters, ("denoiser",)))
    assert loaded.identity == reward.identity != new_reward(generator, lora=lora).identity
    given = inputs(generator)
    # Matrix products round by where a weight lies in memory, and those of a file lie elsewhere.
    torch.testing.assert_close(loaded.scores(*given), reward.scores(*given).detach(), rtol=0, atol=1e-6)
    trained, read = (dict(one.head.state_dict()) for one in (reward, loaded))
    assert trained.keys() == read.keys()
    assert all(torch.equal(trained[name], read[name]) for name in trained)
    assert not any(weight.requires_grad for weight in loaded.weights())
    assert loaded.dimensions == ("motion", "text")


def test_a_reward_of_another_generator_is_rejected(generators: dict[str, PipelineGenerator], tmp_path: Path) -> None:
    new_reward(generators["cogvideox_2b"]).save(tmp_path)
    with pytest.raises(InputError, match="another generator"):
        LatentReward.load(tmp_path, generators["cogvideox_5b"])


def _drop_a_weight(folder: Path) -> None:
    from vr_pipeline.storage.atomic import write_checksums
    from vr_pipeline.storage.tensors import read_tensors, write_tensors

    tensors = {name: value.numpy() for name, value in read_tensors(folder / WEIGHTS_FILE, remedy="").items()}
    del tensors["head.scores.weight"]
    write_tensors(folder / WEIGHTS_FILE, tensors)
    write_checksums(folder)


def _misspell_a_setting(folder: Path) -> None:
    from vr_pipeline.storage.atomic import write_checksums

    settings = json.loads((folder / SETTINGS_FILE).read_text())
    settings["network"]["poolin"] = settings["network"].pop("pooling")
    (folder / SETTINGS_FILE).write_text(json.dumps(settings))
    write_checksums(folder)


def _change_a_byte(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_drop_a_weight, "'head.scores.weight' is missing"),
        (_misspell_a_setting, "perhaps 'pooling' is meant"),
        (_change_a_byte, "missing or damaged"),
        (lambda folder: (folder / SETTINGS_FILE).unlink(), "no latent reward in this folder"),
    ],
)
def test_a_damaged_folder_is_rejected(
    generators: dict[str, PipelineGenerator], tmp_path: Path, harm: Any, told: str
) -> None:
    new_reward(generators["micro_world"]).save(tmp_path)
    harm(tmp_path)
    with pytest.raises(InputError, match=told):
        LatentReward.load(tmp_path, generators["micro_world"])


def test_a_denoiser_without_so_many_blocks_is_rejected(
    generators: dict[str, PipelineGenerator], settings: dict[str, GeneratorParameters]
) -> None:
    with pytest.raises(InputError, match="has 2"):
        new_reward(generators["micro_world"], blocks=3)
    unet = load_generator(settings["sdxl"], ("denoiser",))
    with pytest.raises(InputError, match="no single row of blocks"):
        new_reward(unet)  # type: ignore[arg-type]


def test_times_reach_from_the_clip_to_noise_alone(transformer: PipelineGenerator) -> None:
    noise = torch.ones((2, *inputs(transformer)[0].shape[1:]))
    ends = transformer.timesteps_at(torch.tensor([0.0, 1.0]))
    deviation = transformer.add_noise(torch.zeros_like(noise), noise, ends).flatten(1)[:, 0]
    assert deviation[0] < 0.06
    assert deviation[1] == 1.0
