"""Log rows of trainings, and checks that stop a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vr_pipeline.engine.sharding import local_part
from vr_pipeline.errors import PipelineError

if TYPE_CHECKING:
    import torch

Names = Callable[[int], Sequence[str]]

_SHOWN = 3
"""Number of samples that a message names."""


def log_row(
    step: int, loss: torch.Tensor, statistics: Mapping[str, torch.Tensor], norm: torch.Tensor, rate: float
) -> dict[str, float]:
    """Make one row of the training log: means over the step's samples, and three quantiles of ``logit``."""
    import numpy as np

    row = {"step": step, "loss": loss.item(), "gradient_norm": float(norm), "learning_rate": rate}
    for name, values in statistics.items():
        if name == "logit":
            low, middle, high = np.quantile(values.cpu().numpy(), [0.1, 0.5, 0.9])
            row |= {"logit_p10": float(low), "logit_p50": float(middle), "logit_p90": float(high)}
        else:
            row[name] = values.mean().item()
    return row


def check_finite(
    what: str, values: Mapping[str, torch.Tensor], step: int, *, samples: Names, description: str, remedy: str
) -> None:
    """Reject values of a step that are not finite, before they change a weight.

    Args:
        what: the values' name, for the message.
        values: numbers by name; those of shape [samples] identify the sample.
        step: number of the step.
        samples: returns the names of a step's samples in order; empty without names.
        description: the training, for the message.
        remedy: what to change, unless it is the first step.

    Raises:
        PipelineError: a value is not finite.
    """
    lost = [(name, value.detach().cpu()) for name, value in values.items() if not bool(value.isfinite().all())]
    if not lost:
        return
    names = samples(step)
    each = {name: value for name, value in lost if value.shape == (len(names),)}
    rows = sorted({int(row) for value in each.values() for row in (~value.isfinite()).nonzero()})
    of_samples = _listed([names[row] for row in rows] or names)
    numbers = ", ".join(f"{name} {float(value[~value.isfinite()][0])}" for name, value in each.items())
    advice = (
        "No weight has been changed yet: the model returns NaN in this precision or for these inputs. Train in "
        "float32, or encode the inputs again"
        if step == 1
        else remedy
    )
    raise PipelineError(
        f"The {what} is not finite at step {step} of {description}{of_samples}"
        f"{f' ({numbers})' if numbers else ''}. {advice}; nothing of this step was kept."
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f", for {', '.join(names[:_SHOWN])}{more}" if names else ""


def check_weights(weights: Sequence[torch.Tensor], step: int, *, description: str, remedy: str) -> None:
    """Reject weights that are not finite after a step, before they are stored.

    Raises:
        PipelineError: a weight is not finite.
    """
    if not all(bool(local_part(weight.detach()).isfinite().all()) for weight in weights):
        raise PipelineError(
            f"Weights are not finite after step {step} of {description}. {remedy}; an earlier checkpoint is kept."
        )
