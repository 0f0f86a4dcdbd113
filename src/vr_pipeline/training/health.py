"""Alarms of preference training: winners and losers both modelled worse, and the collapse that follows."""

from __future__ import annotations

import logging

import numpy as np

from vr_pipeline.engine.state import LogRows
from vr_pipeline.errors import PipelineError
from vr_pipeline.training.config import PreferenceTrainingParameters

logger = logging.getLogger(__name__)

_COLLAPSE_WINDOW = 25
"""Steps over which the rule of collapse looks."""


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
            f"({parameters.supervised_weight}), or set collapse_loss to 0 to continue regardless."
        )
