"""Losses against independent formulas in float64 numpy, finite differences and known limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vr_pipeline.training.clip_losses import nft_loss, reward_weighted_loss
from vr_pipeline.training.losses import (
    diffusion_dpo_loss,
    flow_dpo_loss,
    ipo_loss,
    linear_dpo_loss,
    mapo_loss,
    pair_rarity_weights,
    reg_dpo_loss,
    sdpo_scale,
    supervised_loss,
)

errors = st.floats(0.0, 3.0, allow_subnormal=False)


def rows(count: int) -> st.SearchStrategy[np.ndarray]:
    """Some rows of errors, [count, batch]."""
    return st.integers(1, 6).flatmap(lambda batch: arrays(np.float64, (count, batch), elements=errors))


def log_sigmoid(values: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -values)


def tensors(values: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in values]


def assert_gradients(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    """Gradients by backpropagation equal central differences."""
    step = 1e-6
    gradients = torch.autograd.grad(function(*inputs), inputs)
    for index, gradient in enumerate(gradients):
        for row in range(len(inputs[index])):
            values = []
            for sign in (1, -1):
                moved = [value.detach().clone() for value in inputs]
                moved[index][row] += sign * step
                values.append(function(*moved).item())
            assert gradient[row].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-6)


@given(rows(4), st.floats(0.1, 50.0), st.floats(0.0, 0.49))
@settings(max_examples=60, deadline=None)
def test_diffusion_dpo_is_the_formula(values: np.ndarray, beta: float, smoothing: float) -> None:
    winner, loser, winner_reference, loser_reference = values
    logit = -beta / 2 * ((winner - winner_reference) - (loser - loser_reference))
    expected = -((1 - smoothing) * log_sigmoid(logit) + smoothing * log_sigmoid(-logit)).mean()
    loss, statistics = diffusion_dpo_loss(*tensors(values), beta, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(statistics["logit"].numpy(), logit, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(statistics["implicit_accuracy"].numpy(), statistics["logit"].numpy() > 0)
    np.testing.assert_allclose(statistics["winner_change"].numpy(), winner - winner_reference, atol=1e-12)
    np.testing.assert_allclose(statistics["loser_change"].numpy(), loser - loser_reference, atol=1e-12)
    assert not any(value.requires_grad for value in statistics.values())


@given(rows(4), st.floats(0.1, 5.0), st.floats(0.0, 0.4))
@settings(max_examples=15, deadline=None)
def test_diffusion_dpo_gradients(values: np.ndarray, beta: float, smoothing: float) -> None:
    assert_gradients(lambda *inputs: diffusion_dpo_loss(*inputs, beta, label_smoothing=smoothing)[0], tensors(values))


@given(rows(2), st.floats(0.1, 5000.0), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=40, deadline=None)
def test_a_policy_that_equals_its_reference_has_a_loss_of_exactly_log_two(
    values: np.ndarray, beta: float, dtype: torch.dtype
) -> None:
    winner, loser = (torch.tensor(row, dtype=dtype) for row in values)
    loss, statistics = diffusion_dpo_loss(winner, loser, winner.clone(), loser.clone(), beta)
    assert loss.item() == torch.tensor(2.0, dtype=dtype).log().item()
    assert not statistics["logit"].any()


@given(rows(4), st.floats(0.1, 20.0), st.floats(0.0, 2.0), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_diffusion_dpo_invariances(values: np.ndarray, beta: float, shift: float, random: object) -> None:
    arguments = tensors(values)
    loss, statistics = diffusion_dpo_loss(*arguments, beta)
    # The order of pairs is irrelevant.
    order = torch.tensor(np.random.default_rng(0).permutation(values.shape[1]))
    assert diffusion_dpo_loss(*(value[order] for value in arguments), beta)[0].item() == pytest.approx(loss.item())
    # An offset common to policy and reference cancels, for winners and losers apart.
    winner, loser, winner_reference, loser_reference = arguments
    moved = diffusion_dpo_loss(winner + shift, loser, winner_reference + shift, loser_reference, beta)[0]
    assert moved.item() == pytest.approx(loss.item(), rel=1e-6, abs=1e-9)
    # Swapping winner and loser turns the sign of the logit.
    swapped = diffusion_dpo_loss(loser, winner, loser_reference, winner_reference, beta)[1]
    torch.testing.assert_close(swapped["logit"], -statistics["logit"])
    # With labels wrong half of the time, both orders would cost the same.
    both = [
        diffusion_dpo_loss(*pair, beta, label_smoothing=0.499999999)[0].item()
        for pair in (arguments, [loser, winner, loser_reference, winner_reference])
    ]
    assert both[0] == pytest.approx(both[1], rel=1e-5, abs=1e-6)


def test_the_gradient_lowers_the_winners_error_and_raises_the_losers() -> None:
    winner, loser = tensors(np.array([[1.0, 2.0], [1.5, 0.5]]))
    loss, _ = diffusion_dpo_loss(winner, loser, winner.detach(), loser.detach(), 4.0)
    by_winner, by_loser = torch.autograd.grad(loss, [winner, loser])
    # At the start the derivative is beta / 4 a pair, averaged over two pairs.
    torch.testing.assert_close(by_winner, torch.full((2,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(by_loser, torch.full((2,), -0.5, dtype=torch.float64))


def test_huge_logits_stay_finite() -> None:
    winner = torch.tensor([100.0, 0.0], requires_grad=True)
    loser = torch.tensor([0.0, 100.0])
    loss, statistics = diffusion_dpo_loss(winner, loser, torch.zeros(2), torch.zeros(2), 5000.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(winner.grad).all()
    assert statistics["saturation"].tolist() == [0.0, 1.0]


@given(rows(4), st.floats(0.1, 20.0))
@settings(max_examples=30, deadline=None)
def test_pair_weights_weigh_and_equal_weights_change_nothing(values: np.ndarray, beta: float) -> None:
    arguments = tensors(values)
    count = values.shape[1]
    plain = diffusion_dpo_loss(*arguments, beta)[0].item()
    equal = diffusion_dpo_loss(*arguments, beta, pair_weights=torch.full((count,), 3.0, dtype=torch.float64))[0]
    assert equal.item() == pytest.approx(plain, rel=1e-12)
    chosen = torch.zeros(count, dtype=torch.float64)
    chosen[-1] = 2.0
    alone = diffusion_dpo_loss(*(value[-1:] for value in arguments), beta)[0].item()
    weighted = diffusion_dpo_loss(*arguments, beta, pair_weights=chosen)[0].item()
    assert weighted == pytest.approx(alone, rel=1e-12)


@given(rows(5), st.floats(0.1, 50.0))
@settings(max_examples=40, deadline=None)
def test_flow_dpo_is_the_formula(values: np.ndarray, beta: float) -> None:
    times = values[4] / 3.0
    changes = (values[0] - values[2]) - (values[1] - values[3])
    constant = -log_sigmoid(-beta / 2 * changes).mean()
    depending = -log_sigmoid(-beta * (1 - times) ** 2 / 2 * changes).mean()
    arguments = tensors(values[:4])
    assert flow_dpo_loss(*arguments, beta)[0].item() == pytest.approx(constant, rel=1e-10, abs=1e-12)
    assert flow_dpo_loss(*arguments, beta, timesteps=torch.tensor(times))[0].item() == pytest.approx(
        depending, rel=1e-10, abs=1e-12
    )


@given(rows(2))
@settings(max_examples=30, deadline=None)
def test_reward_weighted_regression_is_the_formula(values: np.ndarray) -> None:
    error, reward = tensors(values)
    loss, statistics = reward_weighted_loss(error, reward.detach())
    assert loss.item() == pytest.approx(float((np.exp(values[1]) * values[0]).mean()), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, [error])[0], statistics["weight"] / len(error))


@given(rows(2), st.floats(0.01, 1.0), st.floats(0.1, 2.0), st.integers(1, 100))
@settings(max_examples=40, deadline=None)
def test_mapo_is_the_formula(values: np.ndarray, beta: float, scale: float, steps: int) -> None:
    def likelihood(error: np.ndarray) -> np.ndarray:
        # The series around 0, where the quotient would lose all digits.
        scaled = scale * error
        series = 1 - scaled / 2 + scaled**2 / 12
        with np.errstate(invalid="ignore"):
            return np.where(scaled < 1e-4, series, scaled / np.expm1(scaled))

    expected = values[0].mean() - beta * log_sigmoid(steps * (likelihood(values[0]) - likelihood(values[1]))).mean()
    loss, _ = mapo_loss(*tensors(values), beta, scale=scale, num_timesteps=steps)
    assert loss.item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_mapo_gradients_and_its_limit_at_no_error() -> None:
    inputs = tensors(np.array([[0.3, 1.2, 0.0], [0.5, 0.1, 0.2]]))
    loss = partial(lambda *values: mapo_loss(*values, num_timesteps=3)[0])
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    assert all(torch.isfinite(value).all() for value in gradients)
    assert_gradients(loss, tensors(np.array([[0.3, 1.2, 0.1], [0.5, 0.1, 0.2]])))
    # Where there is no error the slope is the one that it nears.
    at_zero, near_zero = (
        torch.autograd.grad(loss(*values), values)[0][0].item()
        for values in (tensors(np.array([[error], [0.5]])) for error in (0.0, 1e-4))
    )
    assert at_zero == pytest.approx(near_zero, rel=1e-3)
    equal = torch.tensor([0.0, 0.7])
    assert mapo_loss(equal, equal.clone())[0].item() == pytest.approx(0.35 + 0.1 * math.log(2), rel=1e-6)


def test_supervised_loss_is_the_mean() -> None:
    assert supervised_loss(torch.tensor([1.0, 2.0, 6.0]))[0].item() == 3.0


@given(
    arrays(np.float64, (2, 5), elements=st.floats(1e-6, 1.0)), st.floats(0.0, 3.0), st.one_of(st.none(), st.just(0.9))
)
@settings(max_examples=40, deadline=None)
def test_rarity_weights_are_the_formula(values: np.ndarray, alpha: float, maximum: float | None) -> None:
    highest = values.max() if maximum is None else maximum
    expected = (highest / np.maximum(np.sqrt(values[0] * values[1]), 1e-3)) ** alpha
    weights = pair_rarity_weights(torch.tensor(values[0]), torch.tensor(values[1]), alpha, maximum=maximum)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-10)
    assert torch.equal(
        pair_rarity_weights(torch.tensor(values[0]), torch.tensor(values[1]), 0.0), torch.ones(5, dtype=torch.float64)
    )


@pytest.mark.parametrize("shape", [(2, 3), (), (3,)])
def test_errors_that_are_not_one_number_a_sample_are_rejected(shape: tuple[int, ...]) -> None:
    wrong, right = torch.zeros(shape), torch.zeros(2)
    calls: list[Callable[[], object]] = [
        lambda: diffusion_dpo_loss(wrong, right, right, right, 1.0),
        lambda: diffusion_dpo_loss(right, right, right, wrong, 1.0),
        lambda: flow_dpo_loss(right, wrong, right, right, 1.0),
        lambda: mapo_loss(right, wrong),
        lambda: reward_weighted_loss(right, wrong),
        lambda: supervised_loss(torch.zeros((*shape, 2, 1))),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\[batch\]"):
            call()


@settings(max_examples=40, deadline=None)
@given(rows(4), st.floats(0.0, 50.0), st.floats(0.0, 0.4))
def test_linear_dpo_is_its_formula_and_its_gradient_is_the_weight(
    values: np.ndarray, beta: float, floor: float
) -> None:
    winner, loser, winner_reference, loser_reference = tensors(values)
    loss, statistics = linear_dpo_loss(winner, loser, winner_reference, loser_reference, beta, floor=floor)
    margin = (values[0] - values[2]) - (values[1] - values[3])
    weight = np.clip(0.5 + 0.2 * beta * margin, floor, 1 - floor)
    assert loss.item() == pytest.approx(np.mean(weight * (values[0] - values[1])), rel=1e-12, abs=1e-12)
    loss.backward()
    assert winner.grad.numpy() == pytest.approx(weight / len(weight))
    assert loser.grad.numpy() == pytest.approx(-weight / len(weight))
    assert winner_reference.grad is None
    assert statistics["weight"].numpy() == pytest.approx(weight)


def test_linear_dpo_rejects_a_floor_out_of_range() -> None:
    with pytest.raises(ValueError, match="floor"):
        linear_dpo_loss(*torch.ones(4, 2), beta=1.0, floor=0.5)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (2, 6), elements=st.floats(-2, 2, allow_subnormal=False)),
    st.floats(0.0, 1.0),
)
def test_the_scaled_losers_gradient_does_not_raise_the_winners_error(residuals: np.ndarray, mu: float) -> None:
    """One step along the gradient of l_w - lambda l_l, in the space of a prediction shared by both.

    With residuals r_w, r_l of the same prediction, the step is -(r_w - lambda r_l), so that the winner's error
    changes by -r_w (r_w - lambda r_l) to first order; it may not rise, and keeps at least mu of its descent.
    """
    winner, loser = residuals
    error, product = np.mean(winner**2), np.mean(winner * loser)
    scale = sdpo_scale(torch.tensor([error]), torch.tensor([product]), mu).item()
    assert 0.0 <= scale <= 1.0
    change = -(error - scale * product)
    assert change <= -mu * error + 1e-9 or (scale == 1.0 and product <= 0)
    if product <= (1 - mu) * error:
        assert scale == 1.0


def test_sdpo_scale_by_hand() -> None:
    found = sdpo_scale(torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([0.8, -3.0, 0.0, 0.5]), mu=0.6)
    assert found.tolist() == pytest.approx([0.5, 1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="mu"):
        sdpo_scale(torch.ones(1), torch.ones(1), mu=1.5)


@given(rows(4), st.floats(0.05, 50.0))
@settings(max_examples=40, deadline=None)
def test_ipo_is_the_formula_and_pulls_back_what_is_past_its_target(values: np.ndarray, beta: float) -> None:
    winner, loser, winner_reference, loser_reference = values
    margin = (loser - loser_reference) - (winner - winner_reference)
    loss, statistics = ipo_loss(*tensors(values), beta)
    assert loss.item() == pytest.approx(((margin - 1 / (2 * beta)) ** 2).mean(), rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(statistics["logit"].numpy(), margin, atol=1e-12)
    assert_gradients(lambda *inputs: ipo_loss(*inputs, 0.7)[0], tensors(values))
    far = torch.tensor([1.0], requires_grad=True)
    ipo_loss(torch.zeros(1), far, torch.zeros(1), torch.zeros(1), 5.0)[0].backward()
    assert far.grad.item() == pytest.approx(2 * (1.0 - 0.1)), "a margin above 1 / (2 beta) costs"


@given(rows(4), st.floats(0.1, 20.0), st.floats(0.0, 3.0))
@settings(max_examples=30, deadline=None)
def test_reg_dpo_is_dpo_and_the_winners_error(values: np.ndarray, beta: float, weight: float) -> None:
    winner, loser, winner_reference, loser_reference = values
    logit = -beta / 2 * ((winner - winner_reference) - (loser - loser_reference))
    loss, _ = reg_dpo_loss(*tensors(values), beta, regularisation=weight)
    assert loss.item() == pytest.approx(-log_sigmoid(logit).mean() + weight * winner.mean(), rel=1e-9, abs=1e-12)
    assert_gradients(lambda *inputs: reg_dpo_loss(*inputs, 2.0, regularisation=weight)[0], tensors(values))


@given(rows(4), st.floats(1e-4, 0.1), st.integers(1, 2000), st.floats(0.01, 2.0))
@settings(max_examples=30, deadline=None)
def test_the_factor_of_the_papers_equation_is_beta_t_omega(
    values: np.ndarray, beta: float, timesteps: int, omega: float
) -> None:
    arguments = tensors(values)
    given_as = {"strength": "beta_t_omega", "omega": omega, "training_timesteps": timesteps}
    loss, statistics = diffusion_dpo_loss(*arguments, beta, **given_as)
    winner, loser, winner_reference, loser_reference = values
    logit = -beta * timesteps * omega * ((winner - winner_reference) - (loser - loser_reference))
    np.testing.assert_allclose(statistics["logit"].numpy(), logit, rtol=1e-9, atol=1e-12)
    assert loss.item() == pytest.approx(-log_sigmoid(logit).mean(), rel=1e-9, abs=1e-12)
    same, _ = diffusion_dpo_loss(*arguments, 2 * beta * timesteps * omega)
    assert same.item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)


@given(st.integers(0, 10**6), st.floats(0.05, 2.0))
@settings(max_examples=40, deadline=None)
def test_nft_is_the_errors_of_the_mixed_predictions(seed: int, mixing: float) -> None:
    random = np.random.default_rng(seed)
    old, velocity = random.normal(size=(2, 4, 9))
    reward = random.uniform(size=4)
    new = torch.tensor(old + random.normal(size=(4, 9)), requires_grad=True)
    before, target = torch.tensor(old), torch.tensor(velocity)
    squares = [((one - other) ** 2).mean(dim=1) for one, other in ((new, target), (before, target), (new, before))]
    loss, statistics = nft_loss(*squares, torch.tensor(reward), mixing=mixing)
    made = new.detach().numpy()
    positive = (1 - mixing) * old + mixing * made - velocity
    negative = (1 + mixing) * old - mixing * made - velocity
    expected = reward * (positive**2).mean(1) + (1 - reward) * (negative**2).mean(1)
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-9)
    np.testing.assert_allclose(statistics["deviation"].numpy(), ((made - old) ** 2).mean(1))
    loss.backward()
    by_hand = 2 * mixing * (reward[:, None] * positive - (1 - reward[:, None]) * negative) / 9 / 4
    np.testing.assert_allclose(new.grad.numpy(), by_hand, atol=1e-12)


def test_nft_learns_nothing_from_equal_rewards_and_rejects_what_is_no_share() -> None:
    new = torch.tensor([[1.0, -2.0]], requires_grad=True)
    target = torch.zeros(1, 2)
    squares = [(one**2).mean(dim=1) for one in (new - target, new.detach() - target, new - new.detach())]
    loss, statistics = nft_loss(*squares, torch.tensor([0.5]))
    loss.backward()
    assert not new.grad.any()
    assert not statistics["deviation"].any()
    with pytest.raises(ValueError, match="from 0 to 1"):
        nft_loss(*squares, torch.tensor([1.5]))
    with pytest.raises(ValueError, match="mixing"):
        nft_loss(*squares, torch.tensor([0.5]), mixing=0.0)
    with pytest.raises(ValueError, match="strength"):
        diffusion_dpo_loss(*torch.ones(4, 2), 1.0, strength="other")
    with pytest.raises(ValueError, match="regularisation"):
        reg_dpo_loss(*torch.ones(4, 2), 1.0, regularisation=-1.0)
