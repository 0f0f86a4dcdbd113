"""Losses on single clips and their rewards, as pure functions of per-sample errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vr_pipeline.training.losses import Statistics, check_shapes

if TYPE_CHECKING:
    from torch import Tensor


def reward_weighted_loss(error: Tensor, reward: Tensor) -> tuple[Tensor, Statistics]:
    """Compute reward-weighted regression: L = E[exp(r) l], without the (1 - t)^2 factor of the derivation.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback, Flow-RWR.

    Args:
        error: error of the policy on a sample, [batch].
        reward: reward of the sample, normalised over the training set to mean 0 and deviation 1, [batch].
    """
    check_shapes(error=error, reward=reward)
    weights = reward.exp()
    return (weights * error).mean(), {"weight": weights.detach()}


def nft_loss(
    error: Tensor, reference_error: Tensor, deviation: Tensor, reward: Tensor, *, mixing: float = 1.0
) -> tuple[Tensor, Statistics]:
    """Compute DiffusionNFT, negative-aware fine-tuning on the forward process.

    L = E[r |v+ - v|^2 + (1 - r) |v- - v|^2] with v+- = (1 -+ b) v_old +- b v_theta; v_old is the policy that made the
    clips, here the frozen original. Errors of mixtures follow from those of their parts, since
    |(1 - b) x + b y|^2 = (1 - b) |x|^2 + b |y|^2 - b (1 - b) |x - y|^2. Source: Zheng et al. 2025, DiffusionNFT (arXiv
    2509.16117). While v_theta equals v_old the gradient is b (2 r - 1) times that of the error; without a spread of
    rewards within prompts nothing is learned, and the deviation stays at 0.

    Args:
        error: |v_theta - v|^2, the policy's error, [batch].
        reference_error: |v_old - v|^2, the original's, [batch].
        deviation: |v_theta - v_old|^2, the mean over all elements of a sample, [batch].
        reward: r, from 0 to 1, normalised within the clips of a prompt, [batch].
        mixing: b above 0.

    Returns:
        the scalar loss, and detached statistics of shape [batch]: ``deviation`` and ``optimality`` (r).

    Raises:
        ValueError: if an argument is not of shape [batch], b is not above 0, or a reward is outside 0 to 1.
    """
    check_shapes(error=error, reference_error=reference_error, deviation=deviation, reward=reward)
    if not mixing > 0.0:
        raise ValueError(f"mixing must be above 0, got {mixing}")
    if not bool(((reward >= 0.0) & (reward <= 1.0)).all()):
        raise ValueError("rewards must be from 0 to 1")
    positive = (1.0 - mixing) * reference_error + mixing * error - mixing * (1.0 - mixing) * deviation
    negative = (1.0 + mixing) * reference_error - mixing * error + mixing * (1.0 + mixing) * deviation
    loss = (reward * positive + (1.0 - reward) * negative).mean()
    return loss, {"deviation": deviation.detach(), "optimality": reward.detach()}
