"""Objectives in the trainer: each is its formula, whole and in parts, with the settings that it knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import tiny_models
from toy_training import Toy, largest_difference, relative_difference, train
from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.objectives import OBJECTIVES
from vr_pipeline.training.pairs import TrainingPair, prepare_pairs, single_clips
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.training.step import Batch, collate, pair_loss


def with_rewards(toy: Toy) -> list[TrainingPair]:
    return [
        replace(pair, winner_reward=2.0 + row, loser_reward=float(row % 2), segments="a,b")
        for row, pair in enumerate(toy.pairs)
    ]


def batch_of(generator: Generator, toy: Toy, parameters: PreferenceTrainingParameters) -> Batch:
    pairs = prepare_pairs(with_rewards(toy), parameters)
    return collate(generator, [(pair, 0) for pair in pairs], toy.data, parameters)


def log_sigmoid(values: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -values)


def dpo(errors: np.ndarray, reference: np.ndarray, beta: float | np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    winner, loser = errors.reshape(2, -1) - reference.reshape(2, -1)
    logit = -beta / 2 * (winner - loser)
    return -(1 - smoothing) * log_sigmoid(logit) - smoothing * log_sigmoid(-logit)


def gap(errors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    winner, loser = errors.reshape(2, -1) - reference.reshape(2, -1)
    return winner - loser


def linear(errors: np.ndarray, reference: np.ndarray) -> float:
    weight = np.clip(0.5 + 0.2 * 2.0 * gap(errors, reference), 0.1, 0.9)
    return float((weight * (errors[:6] - errors[6:])).mean())


REWARDS = np.array([2.0, 3, 4, 5, 6, 7, 0, 1, 0, 1, 0, 1])


def rarity() -> np.ndarray:
    counts, _ = np.histogram(REWARDS, bins=4)
    which = np.minimum((REWARDS / (7 / 4)).astype(int), 3)
    probability = (counts / 12)[which].reshape(2, -1)
    weights = (counts.max() / 12 / np.maximum(np.sqrt(probability[0] * probability[1]), 1e-3)) ** 2
    return weights / weights.mean()


def of_clips(toy: Toy) -> np.ndarray:
    """Rewards of the clips in the order in which they are trained on: by prompt, then by name."""
    by_clip = {(pair.prompt_id, pair.winner): pair.winner_reward for pair in with_rewards(toy)}
    by_clip |= {(pair.prompt_id, pair.loser): pair.loser_reward for pair in with_rewards(toy)}
    return np.array([by_clip[key] for key in sorted(by_clip)])


def reward_weighted(errors: np.ndarray, reference: np.ndarray, rewards: np.ndarray) -> float:
    return float((np.exp((rewards - rewards.mean()) / rewards.std()) * errors).mean())


def nft(errors: np.ndarray, reference: np.ndarray, rewards: np.ndarray, deviation: np.ndarray) -> float:
    within = rewards.reshape(-1, 2) - rewards.reshape(-1, 2).mean(axis=1, keepdims=True)
    share = 0.5 + 0.5 * np.clip(within.ravel() / rewards.std(), -1, 1)
    # With b = 1 the policies that are compared are the trained one and its mirror image.
    return float((share * errors + (1 - share) * (2 * reference - errors + 2 * deviation)).mean())


def mapo(errors: np.ndarray, reference: np.ndarray) -> float:
    likelihood = 0.5 * errors / np.expm1(0.5 * errors)
    winner, loser = likelihood.reshape(2, -1)
    return float(errors[:6].mean() - 0.1 * log_sigmoid(1000 * (winner - loser)).mean())


CASES: list[tuple[dict[str, object], Callable[[np.ndarray, np.ndarray], float]]] = [
    ({"loss": "diffusion_dpo"}, lambda errors, reference: dpo(errors, reference, 10.0).mean()),
    ({"loss": "flow_dpo", "beta": 3.0}, lambda errors, reference: dpo(errors, reference, 3.0).mean()),
    ({"label_smoothing": 0.2}, lambda errors, reference: dpo(errors, reference, 10.0, 0.2).mean()),
    (
        {"rarity_exponent": 2.0, "rarity_bins": 4, "supervised_weight": 0.5},
        lambda errors, reference: (rarity() * dpo(errors, reference, 10.0)).mean() + 0.5 * errors[:6].mean(),
    ),
    (
        {"strength": "beta_t_omega", "beta": 0.004, "omega": 0.5},
        lambda errors, reference: dpo(errors, reference, 2 * 0.004 * 1000 * 0.5).mean(),
    ),
    ({"loss": "ipo", "beta": 2.0}, lambda errors, reference: ((-gap(errors, reference) - 1 / 4) ** 2).mean()),
    ({"loss": "linear_dpo", "beta": 2.0, "floor": 0.1}, linear),
    (
        {"loss": "reg_dpo", "beta": 3.0, "regularisation": 0.7},
        lambda errors, reference: dpo(errors, reference, 3.0).mean() + 0.7 * errors[:6].mean(),
    ),
    ({"loss": "mapo", "beta": 0.1}, mapo),
    ({"loss": "supervised"}, lambda errors, reference: float(errors[:6].mean())),
]


@pytest.mark.parametrize(("changes", "expected"), CASES, ids=[str(changes) for changes, _ in CASES])
def test_the_trainers_loss_is_the_formula_whole_and_in_parts(
    toy: Toy, changes: dict[str, object], expected: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    generator = toy.generator()
    for value in generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0):
        value.data += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    parameters = toy.parameters(**changes)
    batch = batch_of(generator, toy, parameters)
    with torch.no_grad():
        arguments = (batch.latents, batch.noise, batch.timesteps, batch.condition)
        errors = generator.prediction_error(*arguments).double().numpy()
        with generator.reference():
            reference = generator.prediction_error(*arguments).double().numpy()
        loss, statistics = pair_loss(generator, batch, parameters)
    assert loss.item() == pytest.approx(expected(errors, reference), rel=1e-5)
    assert all(value.shape == (6,) and not value.requires_grad for value in statistics.values())
    whole, log = train(toy, pairs=with_rewards(toy), **changes)
    parts, again = train(toy, pairs=with_rewards(toy), micro_batch_size=1, **changes)
    assert relative_difference(whole, parts) < 1e-4
    np.testing.assert_allclose(again["loss"], log["loss"], rtol=1e-4)
    assert np.isfinite(log.to_numpy()).all()


@pytest.mark.parametrize("loss", ["reward_weighted", "nft"])
def test_losses_of_single_clips_are_their_formulas_whole_and_in_parts(toy: Toy, loss: str) -> None:
    generator = toy.generator()
    for value in generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0):
        value.data += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    parameters = toy.parameters(loss=loss)
    batch = batch_of(generator, toy, parameters)
    assert len(batch.latents) == 12, "every clip of the pairs, once"
    with torch.no_grad():
        arguments = (batch.latents, batch.noise, batch.timesteps, batch.condition)
        policy = generator.residuals(*arguments)
        with generator.reference():
            reference = generator.residuals(*arguments)
        computed, statistics = pair_loss(generator, batch, parameters)
    errors, originals = policy.error().double().numpy(), reference.error().double().numpy()
    rewards = of_clips(toy)
    if loss == "nft":
        away = (policy.prediction - reference.prediction).double().flatten(1).square().mean(dim=1).numpy()
        expected = nft(errors, originals, rewards, away)
        np.testing.assert_allclose(statistics["deviation"].numpy(), away, rtol=1e-4)
    else:
        expected = reward_weighted(errors, originals, rewards)
    assert computed.item() == pytest.approx(expected, rel=1e-5)
    assert all(value.shape == (12,) and not value.requires_grad for value in statistics.values())
    whole, log = train(toy, pairs=with_rewards(toy), loss=loss)
    parts, again = train(toy, pairs=with_rewards(toy), micro_batch_size=1, loss=loss)
    assert relative_difference(whole, parts) < 1e-4
    np.testing.assert_allclose(again["loss"], log["loss"], rtol=1e-4)
    assert {"error", "change", "norm_ratio", "change_share"} <= set(log)
    assert not any(name.startswith(("winner", "loser")) for name in log)
    # Clips without a partner are trained on just the same.
    alone = single_clips(with_rewards(toy))
    assert largest_difference(train(toy, pairs=alone, loss=loss)[0], whole) == 0


def test_losses_of_pairs_reject_single_clips_and_groups_need_two_clips(toy: Toy) -> None:
    alone = single_clips(with_rewards(toy))
    with pytest.raises(InputError, match="12 of 12 are single clips, for instance 'l0'"):
        train(toy, pairs=alone)
    winners = [clip for clip in alone if clip.winner.startswith("w")]
    with pytest.raises(InputError, match="no prompt has two clips"):
        train(toy, pairs=winners, loss="nft")
    with pytest.raises(ValidationError, match="supervised_weight needs winners"):
        toy.parameters(loss="nft", supervised_weight=0.1)
    with pytest.raises(ValidationError, match="omega needs strength"):
        toy.parameters(omega=2.0)


@pytest.mark.parametrize("loss", sorted(OBJECTIVES))
def test_a_kill_between_any_two_steps_of_any_objective_changes_no_bit(toy: Toy, tmp_path: Path, loss: str) -> None:
    settings = {"loss": loss, "steps": 3, "beta": 0.5, "checkpoint_every": 1, "safeguard": {"window": 1}}
    if OBJECTIVES[loss].opposes_losers:
        settings["safeguard"] = {"window": 1, "sdpo_mu": 0.6, "norm_ratio_weight": 0.1}
    parameters, data = toy.parameters(**settings), replace(toy.data, pairs=with_rewards(toy))
    expected = toy.generator()
    log = train_on_pairs(expected, data, parameters)
    file, killed = tmp_path / "training.safetensors", sample_seed(0, loss, 0) % 2 + 1

    class Killed(BaseException):
        pass

    def kill(row: Mapping[str, float]) -> None:
        if row["step"] > killed:
            raise Killed

    with pytest.raises(Killed):
        train_on_pairs(toy.generator(), data, parameters, checkpoint=file, observe=kill)
    resumed = toy.generator()
    assert train_on_pairs(resumed, data, parameters, checkpoint=file).equals(log)
    assert resumed.policy().identity == expected.policy().identity


def test_beta_that_falls_with_noise_is_for_flows_alone(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no straight path from data to noise"):
        train(toy, loss="flow_dpo", beta_falls_with_noise=True)
    generator = load_generator(tiny_models.wan_parameters(tiny_models.save_wan(tmp_path / "wan")))
    for value in generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0):
        value.data += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    parameters = toy.parameters(loss="flow_dpo", beta=200.0, beta_falls_with_noise=True)
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(4, 16, 2, 4, 4, generator=random)
    noise, times = torch.randn(2, 16, 2, 4, 4, generator=random), generator.draw_timesteps(2, random)
    condition = {name: value.repeat(4, 1, 1) for name, value in generator.encode_prompts(["a ball"]).items()}
    batch = Batch(latents, noise.repeat(2, 1, 1, 1, 1), times.repeat(2), condition, torch.zeros(4), None)
    with torch.no_grad():
        arguments = (batch.latents, batch.noise, batch.timesteps, batch.condition)
        errors = generator.prediction_error(*arguments).double().numpy()
        with generator.reference():
            reference = generator.prediction_error(*arguments).double().numpy()
        loss, _ = pair_loss(generator, batch, parameters)
    expected = dpo(errors, reference, 200.0 * (1 - times.double().numpy() / 1000) ** 2).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert abs(loss.item() - math.log(2)) > 1e-4


def test_rewards_are_normalised_over_clips_and_weights_have_mean_one(toy: Toy) -> None:
    pairs = with_rewards(toy)
    ready = prepare_pairs(pairs, toy.parameters(loss="reward_weighted"))
    raw = of_clips(toy)
    np.testing.assert_allclose([clip.winner_reward for clip in ready], (raw - raw.mean()) / raw.std())
    assert {pair.weight for pair in ready} == {1.0}
    ready = prepare_pairs(pairs, toy.parameters(rarity_exponent=2.0, rarity_bins=4))
    np.testing.assert_allclose([pair.weight for pair in ready], rarity())
    assert np.mean([pair.weight for pair in ready]) == pytest.approx(1.0)
    # Pairs rarer than one in a thousand weigh no more than those.
    rewards = [(1.0, 1.0), *((row % 2 / 2, 0.0) for row in range(1, 2000))]
    many = [
        replace(pairs[0], pair_id=str(row), winner=f"w{row}", loser=f"l{row}", winner_reward=first, loser_reward=second)
        for row, (first, second) in enumerate(rewards)
    ]
    ready = prepare_pairs(many, toy.parameters(rarity_exponent=1.0, rarity_bins=3))
    assert ready[0].weight / ready[1].weight == pytest.approx(np.sqrt(1000 / 4000 * 2998 / 4000) / 1e-3)
    # A loss that needs no rewards does not see them.
    assert {pair.winner_reward for pair in prepare_pairs(pairs, toy.parameters())} == {0.0}
    turned = prepare_pairs(pairs[::-1], toy.parameters(rarity_exponent=2.0, rarity_bins=4))
    assert list(turned[::-1]) == list(prepare_pairs(pairs, toy.parameters(rarity_exponent=2.0, rarity_bins=4)))


@pytest.mark.parametrize("reward", [math.nan, 0.0])
def test_rewards_that_are_missing_or_all_the_same_are_named(toy: Toy, reward: float) -> None:
    pairs = [replace(pair, winner_reward=reward) for pair in toy.pairs]
    with pytest.raises(InputError, match="needs the clips' rewards"):
        prepare_pairs(pairs, toy.parameters(loss="reward_weighted"))
    train(toy, pairs=pairs, steps=1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label_smoothing": 0.1, "loss": "mapo"}, "label_smoothing"),
        ({"rarity_exponent": 1.0, "loss": "supervised"}, "rarity_exponent"),
        ({"beta_falls_with_noise": True}, "flow_dpo"),
        ({"lora": LoRAParameters(dropout=0.1)}, "lora.dropout"),
        ({"sharding": "fsdp2"}, "method: full"),
        ({"sharding": "fsdp2", "method": "full", "compile": "blocks"}, "cannot be combined"),
        ({"sharding": "fsdp2", "method": "full", "optimizer": "adamw_8bit"}, "needs optimizer: adamw"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_together_are_rejected_before_anything_runs(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        Toy.parameters(**changes)
