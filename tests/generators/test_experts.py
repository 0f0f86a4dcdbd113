"""Two experts: the time of a pair decides which is asked and trained, and a policy holds what both have learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiny_models import PROMPTS
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Adapter


@pytest.fixture
def parameters(settings: dict[str, GeneratorParameters]) -> GeneratorParameters:
    return settings["wan_2_2_a14b"]


@pytest.mark.parametrize(
    ("times", "trained"),
    [([875.0, 1000.0], {"transformer"}), ([874.0, 1.0], {"transformer_2"}),
     ([900.0, 100.0], {"transformer", "transformer_2"})],
)  # fmt: skip
def test_the_time_decides_which_expert_is_trained(
    times: list[float], trained: set[str], parameters: GeneratorParameters
) -> None:
    generator = load_generator(parameters, ("denoiser",))
    condition = load_generator(parameters, ("text_encoder",)).encode_prompts(PROMPTS[:2])
    generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)
    latents, noise = torch.randn(2, 2, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor(times)
    generator.prediction_error(latents, noise, timesteps, condition).sum().backward()
    named = generator.denoiser.named_parameters()
    assert {name.split(".")[0] for name, value in named if value.grad is not None} == trained
    # A batch of both is each alone, in its place.
    with torch.no_grad():
        together = generator.predict(latents, timesteps, condition)
        for row in range(2):
            network = generator.denoisers()["transformer" if times[row] >= 875 else "transformer_2"]  # type: ignore[attr-defined]
            text = condition["prompt_embeddings"][row : row + 1]
            alone = network(latents[row : row + 1], timesteps[row : row + 1], text, return_dict=False)[0]
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


def test_the_share_of_the_times_of_each_expert_is_that_of_the_shifted_schedule(parameters: GeneratorParameters) -> None:
    drawn = load_generator(parameters, ("denoiser",)).draw_timesteps(20000, torch.Generator().manual_seed(0))
    # With shift 3, 0.875 = 3 u / (1 + 2 u) for u = 0.7.
    assert abs(float((drawn >= 875).float().mean()) - 0.3) < 0.015


def test_an_adapter_has_parts_for_both_and_for_nothing_else(parameters: GeneratorParameters) -> None:
    generator = load_generator(parameters, ("denoiser",))
    generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)
    policy = generator.policy()
    assert isinstance(policy, Adapter)
    assert policy.components == ("transformer", "transformer_2")
    one = {name: value for name, value in policy.tensors.items() if name.startswith("transformer.")}
    assert 2 * len(one) == len(policy.tensors)
    with pytest.raises(InputError, match="lack the layer"):
        generator.load_policy(replace(policy, tensors=one))
    other = {f"unet.{name.partition('.')[2]}": value for name, value in one.items()}
    with pytest.raises(InputError, match="different parts"):
        generator.load_policy(replace(policy, tensors=policy.tensors | other))
    assert not any(hasattr(part, "peft_config") and part.peft_config for part in generator.denoiser.children())
