"""Expected scores, probabilities of comparisons and position bias from log-likelihoods of whole answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.errors import InputError
from vr_pipeline.judges.contract import NoNumbersError
from vr_pipeline.rewards.unifiedreward.forms import TOTAL, PointTemplate
from vr_pipeline.rewards.unifiedreward.scales import ScoreLine

Array = NDArray[np.float64]
Better = Literal["a", "b", "tie"]

SAME = 1e-6
"""Largest difference of equal probabilities, which are float32 and depend on the batch by rounding."""


class NoAnswerError(InputError):
    """The model wrote reasons but no answer: a failure, never a score."""

    of_clip = True
    """Another try would give the same; see ``RewardModel.measure_group``."""


@dataclass(frozen=True)
class LineScore:
    """One line of a score.

    Attributes:
        value: expectation over all values of the scale.
        outside: probability of other text at this place.
        likeliest: the most likely value as text, on which later lines are conditioned.
    """

    value: float
    outside: float
    likeliest: str


@dataclass(frozen=True)
class PointScore:
    """A score.

    Attributes:
        total: the overall score of the template.
        lines: scores by dimension.
        reasons: text of the model before its answer; empty without reasons.
    """

    total: float
    lines: dict[str, LineScore]
    reasons: str = ""

    @property
    def outside(self) -> float:
        """Mean probability outside the scale over the lines."""
        return float(np.mean([line.outside for line in self.lines.values()]))


@dataclass(frozen=True)
class PairScore:
    """A comparison in one order.

    Attributes:
        first, second, tie: probabilities among the answers, which add up to 1.
        outside: probability of other answers.
        reasons: text of the model before its answer; empty without reasons.
    """

    first: float
    second: float
    tie: float
    outside: float
    reasons: str = ""


def line_score(log_likelihoods: Array, line: ScoreLine) -> LineScore:
    """Return the expectation over a scale: sum of value times probability among its values.

    Args:
        log_likelihoods: of each complete value with its end, [values].
        line: the scale.

    Raises:
        NoNumbersError: one is not a log-probability.
    """
    shares, outside = _shares(log_likelihoods, f"the line '{line.dimension}'")
    return LineScore(float(shares @ line.values), outside, line.texts[int(np.argmax(shares))])


def point_score(lines: dict[str, LineScore], asked: PointTemplate, reasons: str = "") -> PointScore:
    """Return the score from its lines, with the template's total."""
    if asked.total == "line":
        total = lines[TOTAL].value
    else:
        scales = {line.dimension: (line.low, line.high) for line in asked.lines}
        scaled = asked.total == "scaled_mean"
        values = [
            (line.value - scales[name][0]) / (scales[name][1] - scales[name][0]) if scaled else line.value
            for name, line in lines.items()
            if name != TOTAL
        ]
        total = float(np.mean(values))
    return PointScore(total, lines, reasons)


def pair_score(log_likelihoods: Array, reasons: str = "") -> PairScore:
    """Return the probabilities of two or three whole answers: first, second and perhaps tie.

    Raises:
        NoNumbersError: one is not a log-probability.
    """
    shares, outside = _shares(log_likelihoods, "the comparison")
    first, second, *tie = shares.tolist()
    return PairScore(first, second, tie[0] if tie else 0.0, outside, reasons)


def shares_score(lines: Mapping[str, LineScore], asked: Sequence[ScoreLine]) -> PairScore:
    """Return a comparison by relative scores: the mean of the first one's expected shares, and the rest."""
    shares = [(lines[one.dimension].value - one.low) / (one.high - one.low) for one in asked]
    first = float(np.mean(shares))
    return PairScore(first, 1.0 - first, 0.0, float(np.mean([line.outside for line in lines.values()])))


def both_orders(a_first: PairScore, b_first: PairScore) -> dict[str, Any]:
    """Return a comparison from the averaged probabilities of both orders.

    Args:
        a_first: the comparison with a before b.
        b_first: the comparison with b before a.

    Returns:
        ``p_a``, ``p_b``, ``p_tie``, which add up to 1; ``position_bias``, half the difference of p_a between the
        orders, above 0 if the first position is favoured; ``outside_mass``, the mean of both; ``better``; and p_a, p_b
        and p_tie of each order, such as ``p_a_first_order`` with a before b.
    """
    orders = {
        "first_order": (a_first.first, a_first.second, a_first.tie),
        "second_order": (b_first.second, b_first.first, b_first.tie),
    }
    p_a, p_b, p_tie = (sum(parts) / 2 for parts in zip(*orders.values(), strict=True))
    row: dict[str, Any] = {"p_a": p_a, "p_b": p_b, "p_tie": p_tie}
    row["position_bias"] = (orders["first_order"][0] - orders["second_order"][0]) / 2
    row["better"] = better_of(p_a, p_b, p_tie)
    row["outside_mass"] = (a_first.outside + b_first.outside) / 2
    for order, values in orders.items():
        row |= {f"{name}_{order}": value for name, value in zip(("p_a", "p_b", "p_tie"), values, strict=True)}
    return row


def better_of(p_a: float, p_b: float, p_tie: float) -> Better:
    """Return the better one if it is more probable than the other and than a tie, else 'tie'."""
    if p_a > max(p_b, p_tie) + SAME:
        return "a"
    return "b" if p_b > max(p_a, p_tie) + SAME else "tie"


def _shares(log_likelihoods: Array, what: str) -> tuple[Array, float]:
    """Return probabilities among the answers, and the mass outside."""
    values = np.asarray(log_likelihoods, dtype=np.float64)
    # Sums of float32 numbers can exceed 0 by rounding.
    if not (np.isfinite(values) & (values < 1e-3)).all():
        raise NoNumbersError(
            f"the reward returned no probability for {what} ({_first_wrong(values)})",
            remedy="Set its dtype to bfloat16 or float32: large numbers overflow in float16",
            field="reward_model.dtype",
        )
    weights = np.exp(values - values.max())
    outside = 1.0 - float(np.exp(values).sum())
    return weights / weights.sum(), min(max(outside, 0.0), 1.0)


def _first_wrong(values: Sequence[float] | Array) -> float:
    return next(float(value) for value in values if not (np.isfinite(value) and value < 1e-3))
