"""Losses that compare segments of two clips, as pure functions of errors of latent frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vr_pipeline.training.losses import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def segment_dpo_loss(
    winner_frame_error: Tensor,
    loser_frame_error: Tensor,
    winner_reference_frame_error: Tensor,
    loser_reference_frame_error: Tensor,
    segments: Tensor,
    beta: float,
) -> tuple[Tensor, Statistics]:
    """Compute Diffusion-DPO by segment: each labelled part of a pair of clips has its own preference.

    L = E_pairs mean_s -log sigmoid(-(beta / 2) y_s D_s), with D of
    :func:`~vr_pipeline.training.losses.diffusion_dpo_loss` over the mean errors of a segment's frames, y_s = 1 if the
    winner is better and -1 if the loser is, and the mean over the labelled segments of a pair. One segment of all
    frames with label 1 gives Diffusion-DPO. Source: Wu et al. 2025, DenseDPO (arXiv 2506.03517).

    Args:
        winner_frame_error: the policy's error on latent frames of winners, [pairs, frames].
        loser_frame_error: the policy's error on latent frames of losers, [pairs, frames].
        winner_reference_frame_error: the frozen reference's error on winners, [pairs, frames].
        loser_reference_frame_error: the frozen reference's error on losers, [pairs, frames].
        segments: integers, [pairs, frames]. Frames of a pair with the same number form a segment; above 0 the winner is
            better in it, below 0 the loser; 0: no label.
        beta: strength of regularisation towards the reference.

    Returns:
        the scalar loss, and detached statistics of shape [pairs], means over the labelled segments of a pair:
        ``logit``, ``implicit_accuracy`` (share of correctly ordered segments) and ``saturation``. Pairs without a label
        are left out of the loss, and their statistics are 0.

    Raises:
        ValueError: the arguments do not all have the same shape [pairs, frames].
    """
    import torch
    from torch.nn.functional import logsigmoid

    arguments = (
        winner_frame_error,
        loser_frame_error,
        winner_reference_frame_error,
        loser_reference_frame_error,
        segments,
    )
    shapes = [tuple(value.shape) for value in arguments]
    if len(shapes[0]) != 2 or len(set(shapes)) != 1:
        raise ValueError(f"errors and segments must all be of one shape [pairs, frames]; got {shapes}")
    numbers = torch.arange(1, int(segments.abs().max()) + 1, device=segments.device)
    numbers = torch.cat([numbers, -numbers])
    members = (segments[:, None, :] == numbers[None, :, None]).to(winner_frame_error.dtype)
    sizes = members.sum(dim=2)
    labelled = (sizes > 0).to(sizes.dtype)
    changes = (winner_frame_error - winner_reference_frame_error) - (loser_frame_error - loser_reference_frame_error)
    differences = (members * changes[:, None, :]).sum(dim=2) / sizes.clamp_min(1.0)
    logits = -0.5 * beta * numbers.sign() * differences

    def of_pairs(values: Tensor) -> Tensor:
        return (values * labelled).sum(dim=1) / labelled.sum(dim=1).clamp_min(1.0)

    loss = of_pairs(-logsigmoid(logits)).sum() / (labelled.sum(dim=1) > 0).sum().clamp_min(1)
    detached = logits.detach()
    return loss, {
        "logit": of_pairs(detached),
        "implicit_accuracy": of_pairs((detached > 0).to(detached.dtype)),
        "saturation": of_pairs(detached.sigmoid()),
    }
