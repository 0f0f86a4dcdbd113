"""Safeguards of preference training, as pure functions of errors and norms of single samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def with_scaled_gradient(error: Tensor, scale: Tensor) -> Tensor:
    """Return the errors with gradients multiplied by ``scale``: sg(l) + scale (l - sg(l)), [batch]."""
    fixed = error.detach()
    return fixed + scale * (error - fixed)


def norm_ratio(norm: Tensor, reference_norm: Tensor) -> Tensor:
    """Return |v| / |v_ref| of every sample, [batch].

    Args:
        norm: norm of the policy's prediction, [batch].
        reference_norm: norm of the reference's, [batch]; at least 1e-12 is used, to avoid 0 / 0.
    """
    return norm / reference_norm.clamp_min(1e-12)


def norm_hinge(ratio: Tensor, limit: float) -> Tensor:
    """Return the distance of norm ratios from the range 1 / limit to limit, [batch]; 0 within it.

    Raises:
        ValueError: the limit is not above 1.
    """
    if not limit > 1.0:
        raise ValueError(f"the limit of the norm ratio must be above 1, got {limit}")
    return (ratio - limit).clamp_min(0.0) + (1.0 / limit - ratio).clamp_min(0.0)
