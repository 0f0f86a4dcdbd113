"""Failure detection of preference training: winners and losers both modelled worse, and collapse."""

import logging

import numpy as np

from vr_pipeline.engine.state import LogRows
from vr_pipeline.engine.watch import Diagnosis
from vr_pipeline.training.config import PreferenceTrainingParameters

logger = logging.getLogger(__name__)

_COLLAPSE_WINDOW = 25
"""Window of the collapse rule, in steps."""

_HEALTHY = 0.5
"""Share of a limit below which weights count as healthy and are kept."""


def warn_of_both_errors(rows: LogRows, description: str) -> None:
    """Warn if winners and losers are both modelled worse than by the reference at the end of a training.

    The loss may fall nevertheless, since it depends only on their difference (Wallace et al. 2023, equation 14).
    """
    recent = [row for row in rows[-max(1, len(rows) // 10) :] if "winner_change" in row and "loser_change" in row]
    if not recent:
        return
    winners, losers = (float(np.mean([row[name] for row in recent])) for name in ("winner_change", "loser_change"))
    if winners > 0 and losers > 0:
        logger.warning(
            "%s: at the end both errors are above the reference's, of winners by %.2g and of losers by %.2g: the "
            "policy moved away from losers more than towards winners. Lower the learning rate, raise beta or "
            "supervised_weight, or train fewer steps",
            description,
            winners,
            losers,
        )


def diagnose(rows: LogRows, parameters: PreferenceTrainingParameters) -> Diagnosis:
    """Diagnose a training from the last rows of its log, with advice if it fails.

    There are three rules, which can be disabled: winners (or, for losses on single clips, all clips) are modelled much
    worse than by the original; the norm of predictions is far from the original's; the loss is almost zero because
    losers are modelled badly.
    """
    guard = parameters.safeguard
    recent = rows[-guard.window :]
    lower = f"Lower the learning rate ({parameters.learning_rate:g})"
    healthy = True
    if guard.max_winner_change is not None and (name := _first(recent, "winner_change_share", "change_share")):
        share = _mean(recent, name)
        who = "winners" if name.startswith("winner") else "clips"
        if share > guard.max_winner_change:
            return Diagnosis(
                False,
                f"the error on {who} exceeds the original's by {share:.2g} times that error, more than "
                f"safeguard.max_winner_change ({guard.max_winner_change:g})",
                lower + _also(parameters),
            )
        healthy = share <= _HEALTHY * guard.max_winner_change
    if guard.max_norm_ratio is not None and (name := _first(recent, "winner_norm_ratio", "norm_ratio")):
        ratio, limit = _mean(recent, name), float(np.log(guard.max_norm_ratio))
        away = abs(float(np.log(max(ratio, 1e-12))))
        if away > limit:
            return Diagnosis(
                False,
                f"the norm of predictions is {ratio:.2g} times the original's, outside 1 / safeguard.max_norm_ratio to "
                f"safeguard.max_norm_ratio ({guard.max_norm_ratio:g})",
                f"{lower}, or raise safeguard.norm_ratio_weight ({guard.norm_ratio_weight:g})",
            )
        healthy = healthy and away <= _HEALTHY * limit
    return _collapse(rows, parameters, lower) or Diagnosis(healthy)


def _collapse(rows: LogRows, parameters: PreferenceTrainingParameters, lower: str) -> Diagnosis | None:
    recent = rows[-_COLLAPSE_WINDOW:]
    if len(recent) < _COLLAPSE_WINDOW or "winner_change" not in recent[-1]:
        return None
    loss, change = _mean(recent, "loss"), _mean(recent, "winner_change")
    if loss >= parameters.collapse_loss or change <= 0:
        return None
    return Diagnosis(
        False,
        f"the loss is {loss:.2g}, below collapse_loss ({parameters.collapse_loss:g}), because losers are modelled "
        f"badly, while winners are also modelled worse than by the original (by {change:.2g})",
        f"{lower}, raise supervised_weight ({parameters.supervised_weight:g}), or set collapse_loss to 0 to disable "
        "this rule",
    )


def _also(parameters: PreferenceTrainingParameters) -> str:
    if not parameters.objective.opposes_losers:
        return ""
    if parameters.safeguard.sdpo_mu is None:
        return ", or set safeguard.sdpo_mu to 0.6"
    return f", or raise beta ({parameters.beta:g})"


def _first(rows: LogRows, *names: str) -> str | None:
    """Return the first of the columns that the rows have."""
    return next((name for name in names if rows and all(name in row for row in rows)), None)


def _mean(rows: LogRows, name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
