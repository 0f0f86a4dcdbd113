"""What a training tells about itself, and when it has to be stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.errors import PipelineError
from vr_pipeline.training.checkpoints import LogRows
from vr_pipeline.training.config import PreferenceTrainingParameters

if TYPE_CHECKING:
    import torch

_COLLAPSE_WINDOW = 25
"""Steps over which the rule of collapse looks."""


def log_row(
    step: int, loss: torch.Tensor, statistics: Mapping[str, torch.Tensor], norm: torch.Tensor, rate: float
) -> dict[str, float]:
    """One row of the training log: means over the step's pairs, and three quantiles of the term inside the sigmoid."""
    row = {"step": step, "loss": loss.item(), "gradient_norm": float(norm), "learning_rate": rate}
    for name, values in statistics.items():
        if name == "logit":
            low, middle, high = np.quantile(values.cpu().numpy(), [0.1, 0.5, 0.9])
            row |= {"logit_p10": float(low), "logit_p50": float(middle), "logit_p90": float(high)}
        else:
            row[name] = values.mean().item()
    return row


def check_finite(
    what: str, value: torch.Tensor, step: int, parameters: PreferenceTrainingParameters, description: str
) -> None:
    """Stop where the loss or its gradient is no number any more.

    Raises:
        PipelineError: then.
    """
    if not math.isfinite(float(value)):
        raise PipelineError(
            f"The {what} is not finite at step {step} of {description}. Lower the learning rate "
            f"({parameters.learning_rate}) or beta ({parameters.beta}), or train in float32; nothing of this "
            "step was kept."
        )


def check_collapse(rows: LogRows, parameters: PreferenceTrainingParameters, description: str) -> None:
    """Stop where the loss nears 0 because losers are pushed away while winners are modelled ever worse.

    Raises:
        PipelineError: then.
    """
    recent = rows[-_COLLAPSE_WINDOW:]
    if len(recent) < _COLLAPSE_WINDOW or "winner_change" not in recent[-1]:
        return
    loss = float(np.mean([row["loss"] for row in recent]))
    change = float(np.mean([row["winner_change"] for row in recent]))
    if loss < parameters.collapse_loss and change > 0:
        raise PipelineError(
            f"Training collapsed at step {int(recent[-1]['step'])} of {description}: the loss is {loss:.2g} because "
            f"losers are modelled badly, while winners are modelled worse than by the reference (by {change:.2g}). "
            f"Lower the learning rate ({parameters.learning_rate}), raise supervised_weight "
            f"({parameters.supervised_weight}), or set collapse_loss to 0 to go on regardless."
        )
