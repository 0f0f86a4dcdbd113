"""Preference losses as pure functions of per-sample errors.

Errors are squared errors averaged over all latent elements of a sample, shape [batch]; row i of every argument is the
same pair. Winner and loser share timestep and noise. The strength beta has no meaning without this reduction and the
space in which the error is measured, so both are recorded with a training run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Statistics = dict[str, "Tensor"]


def _check_shapes(**errors: Tensor) -> None:
    shapes = {name: tuple(value.shape) for name, value in errors.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        raise ValueError(
            "errors must be one number a sample, averaged over all latent axes, all of shape [batch]; got "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        )


def _weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else (values * weights).sum() / weights.sum()


def diffusion_dpo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    winner_reference_error: Tensor,
    loser_reference_error: Tensor,
    beta: float | Tensor,
    *,
    label_smoothing: float = 0.0,
    pair_weights: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Direct preference optimisation of a diffusion model.

    L = -E log sigmoid(-(beta / 2) D), D = (l_w - l_w_ref) - (l_l - l_l_ref). Source: Wallace et al. 2023, Diffusion
    Model Alignment Using Direct Preference Optimization, equation 14, with the timestep weight constant in the space
    of the errors; VisionReward uses beta 500.

    Args:
        winner_error: the policy's error on winners, [batch].
        loser_error: the policy's error on losers, [batch].
        winner_reference_error: the frozen reference's error on winners, [batch].
        loser_reference_error: the frozen reference's error on losers, [batch].
        beta: strength of the pull towards the reference; a number, or one a pair of shape [batch].
        label_smoothing: assumed share of pairs whose label is wrong, 0 to below 0.5 (conservative DPO).
        pair_weights: weight of each pair, [batch]; None weighs all alike.

    Returns:
        the scalar loss, and detached statistics of shape [batch]: ``logit`` (the term inside the sigmoid),
        ``implicit_accuracy`` (1 where the policy already prefers the winner more than the reference does),
        ``winner_change`` and ``loser_change`` (error against the reference; training should lower the first) and
        ``saturation`` (share of gradient lost, sigmoid of the logit).

    Raises:
        ValueError: if an argument is not of shape [batch].
    """
    from torch.nn.functional import logsigmoid

    _check_shapes(
        winner_error=winner_error,
        loser_error=loser_error,
        winner_reference_error=winner_reference_error,
        loser_reference_error=loser_reference_error,
    )
    winner_change = winner_error - winner_reference_error
    loser_change = loser_error - loser_reference_error
    logit = -0.5 * beta * (winner_change - loser_change)
    losses = -(1.0 - label_smoothing) * logsigmoid(logit) - label_smoothing * logsigmoid(-logit)
    detached = logit.detach()
    return _weighted_mean(losses, pair_weights), {
        "logit": detached,
        "implicit_accuracy": (detached > 0).to(detached.dtype),
        "winner_change": winner_change.detach(),
        "loser_change": loser_change.detach(),
        "saturation": detached.sigmoid(),
    }


def flow_dpo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    winner_reference_error: Tensor,
    loser_reference_error: Tensor,
    beta: float,
    *,
    timesteps: Tensor | None = None,
    label_smoothing: float = 0.0,
    pair_weights: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Flow-DPO: the loss of :func:`diffusion_dpo_loss` on velocity errors of a rectified flow.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback. With ``timesteps`` the strength becomes
    beta (1 - t)^2, the variant the authors report to hack the reward; it is here for ablation only.

    Args:
        timesteps: t in 0 (data) to 1 (noise), [batch]; None for the constant strength that is the default.
    """
    strength = beta if timesteps is None else beta * (1.0 - timesteps) ** 2
    return diffusion_dpo_loss(
        winner_error,
        loser_error,
        winner_reference_error,
        loser_reference_error,
        strength,
        label_smoothing=label_smoothing,
        pair_weights=pair_weights,
    )


def reward_weighted_loss(error: Tensor, reward: Tensor) -> tuple[Tensor, Statistics]:
    """Reward-weighted regression: L = E[exp(r) l], without the (1 - t)^2 factor of the derivation.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback, Flow-RWR.

    Args:
        error: error of the policy on a sample, [batch].
        reward: reward of the sample, normalised over the training set to mean 0 and deviation 1, [batch].
    """
    _check_shapes(error=error, reward=reward)
    weights = reward.exp()
    return (weights * error).mean(), {"weight": weights.detach()}


def mapo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    beta: float = 0.1,
    *,
    scale: float = 0.5,
    num_timesteps: int = 1000,
) -> tuple[Tensor, Statistics]:
    """Margin-aware preference optimisation, which needs no reference model.

    L = mean(l_w) - beta mean log sigmoid(T [g(l_w) - g(l_l)]), g(l) = s l / (exp(s l) - 1). g falls as the error
    rises, so the margin is positive where the winner is the better modelled. Source: Hong et al. 2024, Margin-aware
    Preference Optimization for Aligning Diffusion Models without Reference.

    Args:
        winner_error: error on winners, [batch].
        loser_error: error on losers, [batch].
        beta: weight of the margin term.
        scale: s above.
        num_timesteps: T above.
    """
    import torch
    from torch.nn.functional import logsigmoid

    _check_shapes(winner_error=winner_error, loser_error=loser_error)

    def likelihood(error: Tensor) -> Tensor:
        scaled = scale * error
        # expm1 keeps precision for small errors; the limit at zero is 1, and the unused branch must not make NaN
        # gradients.
        safe = torch.where(scaled > 1e-6, scaled, torch.ones_like(scaled))
        return torch.where(scaled > 1e-6, safe / torch.expm1(safe), 1.0 - 0.5 * scaled)

    logit = num_timesteps * (likelihood(winner_error) - likelihood(loser_error))
    loss = winner_error.mean() - beta * logsigmoid(logit).mean()
    detached = logit.detach()
    return loss, {"logit": detached, "implicit_accuracy": (detached > 0).to(detached.dtype)}


def supervised_loss(error: Tensor) -> tuple[Tensor, Statistics]:
    """Fine-tuning on winners alone: the mean error."""
    _check_shapes(error=error)
    return error.mean(), {}


def pair_rarity_weights(
    winner_score_probability: Tensor, loser_score_probability: Tensor, alpha: float, *, maximum: float | None = None
) -> Tensor:
    """Weights that favour pairs of rare scores: (p_max / max(sqrt(p(s_w) p(s_l)), 1e-3))^alpha.

    Source: Liu et al. 2024, VideoDPO. alpha 0 gives equal weights.

    Args:
        winner_score_probability: histogram probability of the winner's score, [batch].
        loser_score_probability: the same of the loser's, [batch].
        alpha: exponent, at least 0.
        maximum: p_max, the largest probability of the histogram; the largest seen here if None.
    """
    import torch

    highest = torch.maximum(winner_score_probability, loser_score_probability).max() if maximum is None else maximum
    geometric = (winner_score_probability * loser_score_probability).sqrt().clamp_min(1e-3)
    return (highest / geometric) ** alpha
