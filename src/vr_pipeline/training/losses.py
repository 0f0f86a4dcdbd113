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


def check_shapes(**errors: Tensor) -> None:
    """Check that all errors have shape [batch].

    Raises:
        ValueError: one has another shape, or batch sizes differ.
    """
    shapes = {name: tuple(value.shape) for name, value in errors.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        raise ValueError(
            "errors must be averaged over all latent axes and have shape [batch]; got "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        )


def _weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else (values * weights).sum() / weights.sum()


def _changes(
    winner_error: Tensor, loser_error: Tensor, winner_reference_error: Tensor, loser_reference_error: Tensor
) -> tuple[Tensor, Tensor]:
    """Return errors on winners and losers minus the reference's."""
    check_shapes(
        winner_error=winner_error,
        loser_error=loser_error,
        winner_reference_error=winner_reference_error,
        loser_reference_error=loser_reference_error,
    )
    return winner_error - winner_reference_error, loser_error - loser_reference_error


def _factor(beta: float | Tensor, strength: str, omega: float, training_timesteps: int) -> float | Tensor:
    if strength == "half_beta":
        return 0.5 * beta
    if strength == "beta_t_omega":
        return beta * training_timesteps * omega
    raise ValueError(f"strength must be half_beta or beta_t_omega, got {strength}")


def diffusion_dpo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    winner_reference_error: Tensor,
    loser_reference_error: Tensor,
    beta: float | Tensor,
    *,
    strength: str = "half_beta",
    omega: float = 1.0,
    training_timesteps: int = 1000,
    label_smoothing: float = 0.0,
    pair_weights: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Compute direct preference optimisation of a diffusion model.

    L = -E log sigmoid(-f D), D = (l_w - l_w_ref) - (l_l - l_l_ref). The factor f is beta / 2 (``half_beta``), as in the
    published code of Wallace et al. 2023, Diffusion Model Alignment Using Direct Preference Optimization (equation 14)
    for mean errors, or beta T omega (``beta_t_omega``), as in equation 2 of VisionReward with constant omega. At the
    same beta the second is 2 T omega times as strong. VisionReward reports beta 500 for CogVideoX.

    Args:
        winner_error: the policy's error on winners, [batch].
        loser_error: the policy's error on losers, [batch].
        winner_reference_error: the frozen reference's error on winners, [batch].
        loser_reference_error: the frozen reference's error on losers, [batch].
        beta: strength of regularisation towards the reference; a number, or one per pair, [batch].
        strength: ``half_beta`` or ``beta_t_omega``, which selects f.
        omega: the constant omega of the second.
        training_timesteps: T of the second.
        label_smoothing: assumed share of wrong labels, 0 to below 0.5 (conservative DPO).
        pair_weights: weight of each pair, [batch]; None: equal weights.

    Returns:
        the scalar loss, and detached statistics of shape [batch]: ``logit`` (the term inside the sigmoid),
        ``implicit_accuracy`` (1 if the policy prefers the winner more than the reference does), ``winner_change`` and
        ``loser_change`` (error minus the reference's; training should lower the first) and ``saturation`` (share of
        gradient lost, sigmoid of the logit).

    Raises:
        ValueError: an argument does not have shape [batch], or the strength is unknown.
    """
    from torch.nn.functional import logsigmoid

    winner_change, loser_change = _changes(winner_error, loser_error, winner_reference_error, loser_reference_error)
    logit = -_factor(beta, strength, omega, training_timesteps) * (winner_change - loser_change)
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
    """Compute Flow-DPO: :func:`diffusion_dpo_loss` on velocity errors of a rectified flow.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback. With ``timesteps`` the strength is
    beta (1 - t)^2, for ablations only: the authors report that this variant hacks the reward.

    Args:
        timesteps: t from 0 (data) to 1 (noise), [batch]; None: constant strength.
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


def ipo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    winner_reference_error: Tensor,
    loser_reference_error: Tensor,
    beta: float,
    *,
    pair_weights: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Compute identity preference optimisation: L = E (-D - 1 / (2 beta))^2, D as in :func:`diffusion_dpo_loss`.

    The margin has a target, so it does not grow without bound. Source: Azar et al. 2023, A General Theoretical Paradigm
    to Understand Learning from Human Preferences, equation 17, with -D instead of the difference of log-ratios.

    Args:
        winner_error, loser_error, winner_reference_error, loser_reference_error, pair_weights: as for
            :func:`diffusion_dpo_loss`.
        beta: strength of regularisation towards the reference; the target margin is 1 / (2 beta).

    Returns:
        the scalar loss, and the statistics of :func:`diffusion_dpo_loss` without ``saturation``; ``logit`` is -D.

    Raises:
        ValueError: an argument does not have shape [batch].
    """
    winner_change, loser_change = _changes(winner_error, loser_error, winner_reference_error, loser_reference_error)
    margin = loser_change - winner_change
    detached = margin.detach()
    return _weighted_mean((margin - 0.5 / beta).square(), pair_weights), {
        "logit": detached,
        "implicit_accuracy": (detached > 0).to(detached.dtype),
        "winner_change": winner_change.detach(),
        "loser_change": loser_change.detach(),
    }


def reg_dpo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    winner_reference_error: Tensor,
    loser_reference_error: Tensor,
    beta: float,
    *,
    regularisation: float = 1.0,
    pair_weights: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Compute Reg-DPO: L = L_DPO + regularisation E l_w, with L_DPO from :func:`diffusion_dpo_loss`.

    Source: Du et al. 2025, Reg-DPO (arXiv 2511.01450), where winners are real clips and losers generated ones: fitting
    the winners keeps the policy on the data while it moves away from losers.

    Args:
        winner_error, loser_error, winner_reference_error, loser_reference_error, beta, pair_weights: as for
            :func:`diffusion_dpo_loss`.
        regularisation: weight of the winners' error, at least 0.

    Returns:
        the scalar loss, and the statistics of :func:`diffusion_dpo_loss`.

    Raises:
        ValueError: an argument does not have shape [batch], or the regularisation is below 0.
    """
    if regularisation < 0.0:
        raise ValueError(f"regularisation must be at least 0, got {regularisation}")
    loss, statistics = diffusion_dpo_loss(
        winner_error,
        loser_error,
        winner_reference_error,
        loser_reference_error,
        beta,
        pair_weights=pair_weights,
    )
    return loss + regularisation * _weighted_mean(winner_error, pair_weights), statistics


def linear_dpo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    winner_reference_error: Tensor,
    loser_reference_error: Tensor,
    beta: float,
    *,
    floor: float = 0.0,
) -> tuple[Tensor, Statistics]:
    """Compute Linear-DPO, whose gradient weight falls linearly with the margin instead of as a sigmoid.

    L = E[w (l_w - l_l)], w = clip(1/2 + 0.2 beta D, floor, 1 - floor) without gradient,
    D = (l_w - l_w_ref) - (l_l - l_l_ref). Source: Li et al. 2026, Linear-DPO (arXiv 2605.21123).

    Args:
        winner_error, loser_error, winner_reference_error, loser_reference_error, beta: as for
            :func:`diffusion_dpo_loss`.
        floor: smallest weight, 0 to below 0.5; above 0, learned pairs keep a part of their gradient.

    Returns:
        the scalar loss, and the statistics of :func:`diffusion_dpo_loss` with ``weight`` instead of ``saturation``.

    Raises:
        ValueError: an argument does not have shape [batch], or the floor is out of range.
    """
    if not 0.0 <= floor < 0.5:
        raise ValueError(f"floor must be at least 0 and below 0.5, got {floor}")
    _, statistics = diffusion_dpo_loss(winner_error, loser_error, winner_reference_error, loser_reference_error, beta)
    del statistics["saturation"]
    weight = (0.5 + 0.2 * beta * (statistics["winner_change"] - statistics["loser_change"])).clamp(floor, 1.0 - floor)
    return (weight * (winner_error - loser_error)).mean(), statistics | {"weight": weight}


def sdpo_scale(winner_error: Tensor, inner_product: Tensor, mu: float = 0.6) -> Tensor:
    """Return the scale of the loser's gradient at which, to first order, a step does not raise the winner's error.

    Safeguarded DPO:

    lambda = clip((1 - mu) l_w / c, 0, 1) where c > 0, else 1. The loser's error is then used as
    sg(l_l) + lambda (l_l - sg(l_l)). Source: arXiv 2511.03317; mu is 0.6 there.

    Args:
        winner_error: squared error averaged over the elements of a sample, [batch].
        inner_product: c, the mean over the elements of a sample of the winner's residual times the loser's, [batch].
        mu: share of the winner's descent that is kept, 0 to 1.

    Returns:
        lambda per pair, in [0, 1], shape [batch], without gradient.
    """
    import torch

    check_shapes(winner_error=winner_error, inner_product=inner_product)
    if not 0.0 <= mu <= 1.0:
        raise ValueError(f"mu must be between 0 and 1, got {mu}")
    error, product = winner_error.detach(), inner_product.detach()
    opposed = product > 0
    ratio = (1.0 - mu) * error / torch.where(opposed, product, torch.ones_like(product))
    return torch.where(opposed, ratio.clamp(0.0, 1.0), torch.ones_like(product))


def mapo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    beta: float = 0.1,
    *,
    scale: float = 0.5,
    num_timesteps: int = 1000,
) -> tuple[Tensor, Statistics]:
    """Compute margin-aware preference optimisation, which needs no reference model.

    L = mean(l_w) - beta mean log sigmoid(T [g(l_w) - g(l_l)]), g(l) = s l / (exp(s l) - 1). g falls as the error
    rises, so the margin is positive if the winner is modelled better. Source: Hong et al. 2024, Margin-aware
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

    check_shapes(winner_error=winner_error, loser_error=loser_error)

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


def supervised_loss(winner_error: Tensor) -> tuple[Tensor, Statistics]:
    """Compute fine-tuning on winners only: the mean error."""
    check_shapes(winner_error=winner_error)
    return winner_error.mean(), {}


def pair_rarity_weights(
    winner_score_probability: Tensor, loser_score_probability: Tensor, alpha: float, *, maximum: float | None = None
) -> Tensor:
    """Return weights that favour pairs of rare scores: (p_max / max(sqrt(p(s_w) p(s_l)), 1e-3))^alpha.

    Source: Liu et al. 2024, VideoDPO. Alpha 0 gives equal weights.

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
