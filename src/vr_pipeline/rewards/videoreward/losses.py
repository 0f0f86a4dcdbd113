"""Losses of pairwise reward models, as pure functions of scores and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def bradley_terry_with_ties_loss(difference: Tensor, label: Tensor, theta: float | Tensor = 5.0) -> Tensor:
    """Return the negative log-likelihood of preference labels with ties, per pair (Rao and Kupper 1967).

    P(first) = s(d - ln theta), P(second) = s(-d - ln theta), P(tie) = (theta^2 - 1) s(d - ln theta) s(-d - ln theta),
    s the sigmoid. Source: Liu et al. 2025, Improving Video Generation with Human Feedback, where theta is 5.

    Args:
        difference: d, reward of the first minus reward of the second, [pairs] or any shape.
        label: 1 (first preferred), 0 (tie) or -1 (second preferred), of the same shape.
        theta: width of ties, above 1; a number or a trained tensor.

    Returns:
        the loss of each pair, of the shape of ``difference``.

    Raises:
        ValueError: shapes differ, a label is invalid, or theta is 1 or less.
    """
    import torch
    from torch.nn.functional import logsigmoid

    if difference.shape != label.shape:
        raise ValueError(f"difference has shape {tuple(difference.shape)}, label {tuple(label.shape)}")
    if not bool(torch.isin(label, torch.tensor([-1, 0, 1], dtype=label.dtype, device=label.device)).all()):
        raise ValueError("labels must be 1 (first), 0 (tie) or -1 (second)")
    width = torch.as_tensor(theta, dtype=difference.dtype, device=difference.device)
    if not bool((width > 1.0).all()):
        raise ValueError("theta must be above 1: at 1 a tie has probability 0")
    first = logsigmoid(difference - width.log())
    second = logsigmoid(-difference - width.log())
    tie = first + second + torch.log(width**2 - 1.0)
    return -torch.where(label == 0, tie, torch.where(label > 0, first, second))


LOSSES = ("bt", "btt", "regression")
"""Bradley-Terry on pairs without ties, Bradley-Terry with ties, squared error of grades."""


@dataclass(frozen=True)
class Targets:
    """Human labels and grades of pairs; missing ones are masked.

    Attributes:
        label: 1 (first preferred), 0 (tie), -1 (second preferred) or NaN (masked), [pairs, dimensions].
        grades: of both clips, NaN if missing, [pairs, 2, dimensions].
    """

    label: Tensor
    grades: Tensor

    def present(self, loss: str) -> Tensor:
        """Return which labels a loss uses: bool [pairs, dimensions], for grades [pairs, 2, dimensions]."""
        if loss == "regression":
            return ~self.grades.isnan()
        if loss == "bt":
            return (self.label == 1) | (self.label == -1)
        return ~self.label.isnan()


def summed_loss(
    loss: str, scores: Tensor, targets: Targets, *, theta: float | Tensor = 5.0, centre: float = 3.0
) -> Tensor:
    """Return the sum of a loss over all present labels, a scalar; masked ones add neither loss nor gradient.

    bt: -log s(d) of the preferred clip's lead d. btt: :func:`bradley_terry_with_ties_loss`. regression: squared error
    of each clip's score against its grade minus a centre. Source: Liu et al. 2025, section 4.1.

    Args:
        loss: one of :data:`LOSSES`.
        scores: of both clips of each pair, [pairs, 2, dimensions].
        targets: labels or grades.
        theta: width of ties.
        centre: subtracted from grades.
    """
    import torch
    from torch.nn.functional import logsigmoid

    present = targets.present(loss)
    if loss == "regression":
        # NaN is replaced first: its gradient would be NaN even if masked later.
        return torch.where(present, (scores - (targets.grades.nan_to_num() - centre)).square(), 0.0).sum()
    difference, label = scores[:, 0] - scores[:, 1], targets.label.nan_to_num()
    bt = loss == "bt"
    values = -logsigmoid(label * difference) if bt else bradley_terry_with_ties_loss(difference, label, theta)
    return torch.where(present, values, 0.0).sum()
