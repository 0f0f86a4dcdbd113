"""What a training tells about itself, and when it has to be stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.engine.state import LogRows
from vr_pipeline.errors import PipelineError
from vr_pipeline.training.config import PreferenceTrainingParameters

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_SHOWN = 3
"""Pairs that a message names."""

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
    what: str,
    values: Mapping[str, torch.Tensor],
    pairs: Sequence[str],
    step: int,
    parameters: PreferenceTrainingParameters,
    description: str,
) -> None:
    """Stop where something of a step is no number, before it can reach a weight.

    Args:
        what: what it is, for the message.
        values: numbers by name; those of shape [pairs] name the pair.
        pairs: identifiers of the step's pairs, in the order of the values.
        step: number of the step.
        parameters: settings.
        description: the training, for the message.

    Raises:
        PipelineError: then.
    """
    lost = [(name, value.detach().cpu()) for name, value in values.items() if not bool(value.isfinite().all())]
    if not lost:
        return
    each = {name: value for name, value in lost if value.shape == (len(pairs),)}
    rows = sorted({int(row) for value in each.values() for row in (~value.isfinite()).nonzero()})
    of_pairs = _listed([pairs[row] for row in rows] or pairs)
    numbers = ", ".join(f"{name} {float(value[~value.isfinite()][0])}" for name, value in each.items())
    advice = (
        "No weight has been changed yet: the model itself gives no numbers, in this precision or for these latents "
        "and prompts. Train in float32, or delete latents and text conditions so that they are encoded again"
        if step == 1
        else f"Lower the learning rate ({parameters.learning_rate}) or beta ({parameters.beta}), or train in float32"
    )
    raise PipelineError(
        f"The {what} is not finite at step {step} of {description}, for {of_pairs}"
        f"{f' ({numbers})' if numbers else ''}. {advice}; nothing of this step was kept."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ("the pairs " if len(names) > 1 else "the pair ") + ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def check_weights(
    weights: Sequence[torch.Tensor], step: int, parameters: PreferenceTrainingParameters, description: str
) -> None:
    """Stop where a step has made a weight that is no number, before it is kept anywhere.

    Raises:
        PipelineError: then.
    """
    from vr_pipeline.engine.sharding import local_part

    if not all(bool(local_part(weight.detach()).isfinite().all()) for weight in weights):
        raise PipelineError(
            f"Weights are not finite after step {step} of {description}. Lower the learning rate "
            f"({parameters.learning_rate}); the checkpoint before, if there is one, is kept."
        )


def warn_of_both_errors(rows: LogRows, description: str) -> None:
    """Say in the log that at the end winners are modelled worse than by the reference, and losers with them.

    The loss falls all the same, since it asks only for the difference (Wallace et al. 2023, equation 14).
    """
    recent = [row for row in rows[-max(1, len(rows) // 10) :] if "winner_change" in row and "loser_change" in row]
    if not recent:
        return
    winners, losers = (float(np.mean([row[name] for row in recent])) for name in ("winner_change", "loser_change"))
    if winners > 0 and losers > 0:
        logger.warning(
            "%s: at the end both errors have risen above the reference's, those of winners by %.2g and those of "
            "losers by %.2g: the policy is pushed away from losers more than towards winners. Lower the learning rate, "
            "raise beta or supervised_weight, or train fewer steps",
            description,
            winners,
            losers,
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
