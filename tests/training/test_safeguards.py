"""Safeguards: scaled gradients of losers, norms against the reference, and what the log says of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from toy_training import Toy, largest_difference, relative_difference, train
from vr_pipeline.generators.contract import Generator
from vr_pipeline.generators.residuals import Residuals, mean_product
from vr_pipeline.training.losses import sdpo_scale
from vr_pipeline.training.safeguards import norm_hinge, norm_ratio, with_scaled_gradient
from vr_pipeline.training.step import Batch, collate, pair_loss


@given(st.integers(0, 10**6), st.floats(0.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_a_safeguarded_step_keeps_the_share_mu_of_the_winners_descent(seed: int, mu: float) -> None:
    random = np.random.default_rng(seed)
    winner, loser = random.normal(size=(2, 5, 12)) + random.normal(size=(1, 5, 1))
    predictions = [torch.tensor(side, requires_grad=True) for side in (winner, loser)]
    errors = [(side**2).mean(dim=1) for side in predictions]
    scale = sdpo_scale(errors[0], mean_product(*predictions), mu)
    loss = (errors[0] - with_scaled_gradient(errors[1], scale)).sum()
    assert loss.item() == pytest.approx(((winner**2).mean(1) - (loser**2).mean(1)).sum())
    by_winner, by_loser = torch.autograd.grad(loss, predictions)
    # One network predicts for both: a step against the sum of both gradients moves the winner's prediction by it.
    step = -(by_winner + by_loser)
    change = (torch.tensor(2 * winner) * step).sum(dim=1).numpy()
    alone = -(4 * winner**2 / 12).sum(1)
    assert (change <= mu * alone + 1e-9).all()
    whole = -(4 * winner * (winner - loser) / 12).sum(1)
    kept = scale.numpy() == 1
    np.testing.assert_allclose(change[kept], whole[kept], atol=1e-9)
    np.testing.assert_allclose(change[~kept], mu * alone[~kept], atol=1e-9)


def test_the_hinge_acts_on_both_sides_and_nowhere_else() -> None:
    norms = torch.tensor([0.5, 0.92, 1.0, 1.09, 1.5], dtype=torch.float64, requires_grad=True)
    hinge = norm_hinge(norm_ratio(norms, torch.ones(5, dtype=torch.float64)), 1.1)
    expected = [max(value - 1.1, 1 / 1.1 - value, 0.0) for value in norms.tolist()]
    np.testing.assert_allclose(hinge.detach().numpy(), expected)
    hinge.sum().backward()
    assert norms.grad.tolist() == [-1.0, 0.0, 0.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="above 1"):
        norm_hinge(norms, 1.0)


@pytest.mark.parametrize("axis", [None, 1, 2])
def test_errors_of_frames_average_to_that_of_the_sample(axis: int | None) -> None:
    random = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 5, 6, 7, generator=random)
    residuals = Residuals(prediction, target, axis)
    frames = residuals.frame_error()
    assert frames.shape == (3, 1 if axis is None else prediction.shape[axis])
    torch.testing.assert_close(frames.mean(dim=1), residuals.error())
    if axis is not None:
        chosen = (prediction - target).select(axis, 2)
        torch.testing.assert_close(frames[:, 2], (chosen**2).flatten(1).mean(dim=1))
    torch.testing.assert_close(residuals.norm(), (prediction**2).flatten(1).mean(dim=1).sqrt())
    zero = torch.zeros(2, 3, requires_grad=True)
    Residuals(zero, zero.detach()).norm().sum().backward()
    assert not zero.grad.any()


def disturbed(toy: Toy, size: float = 0.05) -> Generator:
    generator = toy.generator()
    for value in generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0):
        value.data += size * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return generator


def batch_of(generator: Generator, toy: Toy, **changes: object) -> Batch:
    return collate(generator, [(pair, 0) for pair in toy.pairs], toy.data, toy.parameters(**changes))


def test_the_statistics_of_a_step_are_those_of_its_predictions(toy: Toy) -> None:
    generator = disturbed(toy)
    batch = batch_of(generator, toy)
    arguments = (batch.latents, batch.noise, batch.timesteps, batch.condition)
    with torch.no_grad():
        policy = generator.residuals(*arguments)
        with generator.reference():
            reference = generator.residuals(*arguments)
        loss, statistics = pair_loss(generator, batch, toy.parameters(safeguard={"sdpo_mu": 0.6}))
        plain, without = pair_loss(generator, batch, toy.parameters())
    assert loss == plain, "the value of the loss is that without the safeguard"
    assert "sdpo_scale" not in without
    ratio = (policy.prediction.flatten(1).norm(dim=1) / reference.prediction.flatten(1).norm(dim=1)).chunk(2)
    torch.testing.assert_close(statistics["winner_norm_ratio"], ratio[0])
    torch.testing.assert_close(statistics["loser_norm_ratio"], ratio[1])
    winner, loser = policy.residual.double().flatten(1).numpy().reshape(2, 6, -1)
    product = (winner * loser).mean(axis=1)
    expected = np.where(product > 0, np.clip(0.4 * (winner**2).mean(axis=1) / np.abs(product), 0, 1), 1)
    np.testing.assert_allclose(statistics["sdpo_scale"].numpy(), expected, rtol=1e-5)
    assert expected.min() < 1, "nothing would be safeguarded here"
    torch.testing.assert_close(statistics["winner_reference_error"], reference.error()[:6])


@pytest.mark.parametrize("loss", ["diffusion_dpo", "flow_dpo", "mapo"])
def test_the_safeguard_changes_gradients_of_every_loss_that_pushes_losers_away(toy: Toy, loss: str) -> None:
    plain, _ = train(toy, loss=loss, beta=0.5, steps=2)
    guarded, log = train(toy, loss=loss, beta=0.5, steps=2, safeguard={"sdpo_mu": 0.9})
    assert log["sdpo_scale"].between(0, 1).all()
    assert largest_difference(plain, guarded) > 0
    parts, _ = train(toy, loss=loss, beta=0.5, steps=2, safeguard={"sdpo_mu": 0.9}, micro_batch_size=1)
    assert relative_difference(parts, guarded) < 1e-4


def test_the_hinge_enters_the_loss(toy: Toy) -> None:
    generator = disturbed(toy, 0.3)
    batch = batch_of(generator, toy)
    with torch.no_grad():
        plain, statistics = pair_loss(generator, batch, toy.parameters())
        guard = {"norm_ratio_weight": 2.0, "norm_ratio_limit": 1.01}
        loss, _ = pair_loss(generator, batch, toy.parameters(safeguard=guard))
    ratio = torch.cat([statistics["winner_norm_ratio"], statistics["loser_norm_ratio"]])
    expected = 2 * torch.maximum((ratio - 1.01).clamp_min(0), 1 / 1.01 - ratio).mean()
    assert expected > 1e-3
    assert loss.item() - plain.item() == pytest.approx(expected.item(), rel=1e-3)


def test_losses_without_a_reference_are_watched_where_the_original_is_at_hand(toy: Toy) -> None:
    watched, log = train(toy, loss="supervised", steps=2)
    alone, other = train(toy, loss="supervised", steps=2, safeguard={"watch_reference": False})
    assert watched.identity == alone.identity
    assert {"winner_change", "winner_change_share", "loser_norm_ratio"} <= set(log) - set(other)
    assert not toy.parameters(loss="supervised", method="full").uses_reference
    assert toy.parameters(loss="diffusion_dpo", safeguard={"watch_reference": False}).uses_reference


def test_the_share_of_the_winners_change_is_one_of_means(toy: Toy) -> None:
    _, log = train(toy)
    np.testing.assert_allclose(
        log["winner_change_share"], log["winner_change"] / log["winner_reference_error"], rtol=1e-4
    )
    assert log["winner_norm_ratio"].iloc[0] == 1
    assert log["winner_change"].iloc[0] == 0


def test_a_safeguard_for_losers_needs_a_loss_with_losers(toy: Toy) -> None:
    with pytest.raises(ValidationError, match="does not push losers away, only with diffusion_dpo, flow_dpo, ipo"):
        toy.parameters(loss="supervised", safeguard={"sdpo_mu": 0.6})
