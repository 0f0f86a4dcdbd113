"""The DPO loss on responses (Rafailov et al. 2023, equation 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def margins(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the difference of the chosen and the rejected response in the implicit reward of DPO, [pairs].

    Args:
        policy: log-probabilities of whole responses (chosen, rejected), summed over their tokens, [pairs, 2].
        reference: the same by the model before training.
        beta: weight of the log-ratios.
    """
    ratios = policy - reference
    return beta * (ratios[:, 0] - ratios[:, 1])


def dpo_losses(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """Return -log sigmoid(beta [(log pi_w - log ref_w) - (log pi_l - log ref_l)]) of each pair, [pairs].

    Args:
        policy, reference, beta: see :func:`margins`.
    """
    import torch

    return -torch.nn.functional.logsigmoid(margins(policy, reference, beta))
