"""One step: what a batch holds, the reference beside the policy, gradients in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_models
from toy_training import Toy, relative_difference, train
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.contract import Generator
from vr_pipeline.training import step as step_module
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.policies import _seed
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.training.step import Batch, collate


def test_noise_and_timestep_are_shared_by_a_pair_and_belong_to_it(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Batch] = []
    names: list[list[tuple[str, int]]] = []
    collate = step_module.collate

    def spy(generator, chosen, *rest):  # type: ignore[no-untyped-def]
        batches.append(collate(generator, chosen, *rest))
        names.append([(pair.pair_id, epoch) for pair, epoch in chosen])
        return batches[-1]

    monkeypatch.setattr(step_module, "collate", spy)
    train(toy, steps=4)
    train(toy, steps=4, batch_size=3)
    noise_of: dict[tuple[str, int], tuple[torch.Tensor, float]] = {}
    for batch, members in zip(batches, names, strict=True):
        winners, losers = batch.noise.chunk(2)
        assert torch.equal(winners, losers)
        assert torch.equal(*batch.timesteps.chunk(2))
        for row, member in enumerate(members):
            known = noise_of.setdefault(member, (winners[row], float(batch.timesteps[row])))
            # Another batch size draws the same noise for the same pair in the same epoch.
            assert torch.equal(known[0], winners[row])
            assert known[1] == float(batch.timesteps[row])
    drawn = [value for _, (value, _) in sorted(noise_of.items())]
    assert len(drawn) > len(toy.pairs)
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])


def test_within_the_reference_context_the_network_is_the_original(toy: Toy) -> None:
    generator = toy.generator()
    arguments = (
        torch.stack(list(toy.latents.values())[:2]),
        torch.randn(2, *next(iter(toy.latents.values())).shape, generator=torch.Generator().manual_seed(0)),
        torch.tensor([300, 800]),
        {name: value.repeat(2, 1, 1) for name, value in next(iter(toy.conditions.values())).items()},
    )
    before = {name: value.clone() for name, value in generator.denoiser.state_dict().items()}
    with torch.no_grad():
        original = generator.prediction_error(*arguments)
    train(toy, generator)
    with torch.no_grad():
        trained = generator.prediction_error(*arguments)
        with generator.reference():
            reference = generator.prediction_error(*arguments)
        again = generator.prediction_error(*arguments)
    assert torch.equal(reference, original)
    assert not torch.equal(trained, original)
    assert torch.equal(trained, again)
    # Only the adapter was trained: all weights of the network are still there and unchanged.
    after = {name.replace(".base_layer", ""): value for name, value in generator.denoiser.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_reference_is_left_even_if_something_fails_in_it(toy: Toy) -> None:
    generator = toy.generator()
    generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)

    def fail() -> None:
        with generator.reference():
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert all(
        not module.disable_adapters
        for module in generator.denoiser.modules()
        if hasattr(module, "disable_adapters") and not callable(module.disable_adapters)
    )


@pytest.mark.parametrize("size", [1, 3])
def test_accumulated_gradients_equal_those_of_the_whole_batch(
    toy: Toy, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    pair_loss = step_module.pair_loss

    def counting(generator: Generator, batch: Batch, *rest: object) -> object:
        together.append(len(batch.latents) // 2)
        return pair_loss(generator, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(step_module, "pair_loss", counting)
    whole, log = train(toy)
    assert set(together) == {4}
    together.clear()
    parts, other = train(toy, micro_batch_size=size)
    assert together == [*[size] * (4 // size), *[4 % size] * (4 % size > 0)] * 6
    assert relative_difference(whole, parts) < 1e-4
    np.testing.assert_allclose(other["loss"], log["loss"], rtol=1e-5)
    np.testing.assert_allclose(other["gradient_norm"], log["gradient_norm"], rtol=1e-4)
    assert list(other.columns) == list(log.columns)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_and_texts_that_are_no_numbers_are_named(toy: Toy, value: float) -> None:
    latents = toy.latents | {"l3": toy.latents["l3"].clone().index_fill(0, torch.tensor([0]), value)}
    with pytest.raises(InputError, match=r"latents of the clip 'l3' .* 'pair 3'"):
        train_on_pairs(toy.generator(), replace(toy.data, latents=latents), toy.parameters())
    prompt = toy.pairs[2].prompt_id
    texts = toy.conditions | {prompt: {name: part * value for name, part in toy.conditions[prompt].items()}}
    with pytest.raises(InputError, match=f"text condition of the prompt '{prompt}' .* 'pair 2'"):
        train_on_pairs(toy.generator(), replace(toy.data, conditions=texts), toy.parameters())


def test_prior_noise_is_that_of_each_clips_own_seed(toy: Toy, tmp_path: Path) -> None:
    generator = load_generator(tiny_models.wan_parameters(tiny_models.save_wan(tmp_path / "wan")))
    random = torch.Generator().manual_seed(0)
    latents = {name: torch.randn(16, 2, 4, 4, generator=random) for name in ("w0", "l0", "w1", "l1")}
    pairs = [TrainingPair(f"pair {row}", "a", f"w{row}", f"l{row}", seeds=(row, 10 + row)) for row in range(2)]
    data = PairData(pairs, latents, {"a": generator.encode_prompts(["a ball"])})
    batch = collate(generator, [(pair, 3) for pair in pairs], data, toy.parameters(noise="prior"))
    drawn = collate(generator, [(pair, 3) for pair in pairs], data, toy.parameters())
    expected = [generator.initial_noise((16, 2, 4, 4), seed) for seed in (0, 1, 10, 11)]
    assert torch.equal(batch.noise, torch.stack(expected))
    assert torch.equal(batch.timesteps, drawn.timesteps)
    assert not torch.equal(batch.noise, drawn.noise)
    unknown = replace(pairs[0], seeds=(0, None))
    with pytest.raises(InputError, match="initial noise of the clip 'l0' is unknown"):
        collate(generator, [(unknown, 0)], data, toy.parameters(noise="prior"))
    with pytest.raises(InputError, match=r"training\.noise.*no straight path"):
        train(toy, pairs=[replace(pair, seeds=(1, 2)) for pair in toy.pairs], noise="prior")


def test_seeds_are_known_of_the_generators_own_clips_alone() -> None:
    assert _seed(f"maker {2**62 + 1}", "maker") == 2**62 + 1
    assert _seed("another 5", "maker") is None
    assert _seed(None, "maker") is None
    assert _seed("maker 5", "") is None
