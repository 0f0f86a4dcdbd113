"""Of LTX-2, the video stream is trained and the audio stream left as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generator_families import without_sound
from tiny_models import PROMPTS
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.guidance import load_guidance
from vr_pipeline.generators.policy import Adapter
from vr_pipeline.training.model_card import model_card

ONE = list(PROMPTS[:1])


def error_of(generator: object) -> torch.Tensor:
    parameters = generator.parameters  # type: ignore[attr-defined]
    clips = np.random.default_rng(0).integers(0, 256, (1, parameters.num_frames, 64, 64, 3), dtype=np.uint8)
    latents, condition = generator.encode_frames(clips), generator.encode_prompts(ONE)  # type: ignore[attr-defined]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    return generator.prediction_error(latents, noise, torch.tensor([500.0]), condition)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("name", ["ltx_2", "ltx_2_3"])
def test_the_error_reaches_all_that_is_trained_and_nothing_of_the_audio_stream(
    name: str, settings: dict[str, GeneratorParameters]
) -> None:
    generator = load_generator(settings[name])
    network = generator.denoiser.requires_grad_(True)
    error_of(generator).sum().backward()
    moved = {key for key, value in network.named_parameters() if value.grad is not None and bool(value.grad.any())}
    generator.train_all_weights(reference=False)
    trained = {key for key, value in generator.denoiser.named_parameters() if value.requires_grad}
    assert trained == moved
    assert {"proj_in.weight", "transformer_blocks.1.attn2.to_k.weight", "proj_out.weight"} <= trained
    adapted = generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)
    names = [key for key, value in generator.denoiser.named_parameters() if value.requires_grad]
    assert len(names) == len(adapted) == 2 * 2 * 8  # layers, A and B, queries to outputs of two attentions
    assert all(key.partition(".lora_")[0] + ".weight" in trained for key in names)


def test_sampling_hears_the_audio_stream_that_training_leaves_out(settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings["ltx_2"])
    before, error = generator.sample(ONE, [1]), error_of(generator)
    with torch.no_grad():
        for key, value in generator.denoiser.named_parameters():
            if "audio_to_video_attn" in key:
                value.add_(0.5)
    assert torch.equal(error_of(generator), error)
    assert not np.array_equal(generator.sample(ONE, [1]), before)
    without_sound(generator.pipeline)  # type: ignore[attr-defined]
    alone = generator.sample(ONE, [1])
    assert not np.array_equal(alone, before)


def test_adapters_of_audio_layers_and_rewards_of_latents_are_rejected(settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings["ltx_2"], ("denoiser",))
    with pytest.raises(InputError, match=r"adapter\.targets.*audio_attn1\.to_q.*audio stream"):
        generator.add_adapter(rank=2, alpha=2.0, targets=["to_q"], seed=0)
    assert not getattr(generator.denoiser, "peft_config", None)
    steered = GuidanceReward(model="anywhere", weights={"motion": 1.0})
    generator.parameters = generator.parameters.model_copy(update={"guidance_reward": steered})
    with pytest.raises(InputError, match=r"family ltx_2 cannot be steered"):
        load_guidance(generator)


def test_the_card_of_a_policy_says_that_the_audio_stream_was_not_trained() -> None:
    tensors = {"transformer.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(1, 1)}
    config = {"r": 1, "lora_alpha": 1, "target_modules": ["attn1.to_q"]}
    said = "Only the video stream was trained"
    assert said in model_card(Adapter(tensors, config, "base", {"base": {"family": "ltx_2", "path": "model"}}))
    assert said not in model_card(Adapter(tensors, config, "base", {"base": {"family": "wan", "path": "model"}}))
