"""Calibration of the head's outputs to scores, ties and probabilities, on held-out clips and pairs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward.settings import TOTAL, Calibration, SeenClips
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.statistics.labels import checked_preference
from vr_pipeline.video.sampled import SampledClip, shape_of

FloatArray = npt.NDArray[np.float64]

LABELS = ("a", "tie", "b")
TOLERANCE = 0.05
"""Relative tolerance of rate, area and length against the range of training."""


def standardised(raw: npt.ArrayLike, names: Sequence[str], calibration: Calibration | None) -> FloatArray:
    """Return scores, (raw - mean) / deviation of each dimension, or raw without a calibration.

    Args:
        raw: [clips, dimensions].
        names: the dimensions.
        calibration: mean and deviation of each.
    """
    values = np.asarray(raw, dtype=np.float64)
    if calibration is None:
        return values
    mean, deviation = ([of[name] for name in names] for of in (calibration.mean, calibration.deviation))
    return (values - np.array(mean)) / np.array(deviation)


def probabilities(difference: npt.ArrayLike, theta: float = 5.0, scale: float = 1.0) -> FloatArray:
    """Return P(A is better), P(tie) and P(B is better), which add up to 1, by Bradley-Terry with ties.

    Rao and Kupper 1967; Liu et al. 2025, equation 3: with d = scale times difference and s the sigmoid, P(A) =
    s(d - ln theta), P(B) = s(-d - ln theta), P(tie) = (theta^2 - 1) P(A) P(B).

    Args:
        difference: score of A minus score of B, of any shape.
        theta: width of ties, 1 (no ties) or more.
        scale: factor of differences, above 0.

    Returns:
        float64 [..., 3].
    """
    logs = _log_probabilities(scale * np.asarray(difference, dtype=np.float64), math.log(theta))
    p_a, p_b = np.exp(logs[..., 0]), np.exp(logs[..., 2])
    # The remainder, so that they add up to 1.
    return np.stack([p_a, np.clip(1.0 - p_a - p_b, 0.0, 1.0), p_b], axis=-1)


def _log_probabilities(difference: FloatArray, width: float) -> FloatArray:
    """Return the logarithms of P(A), P(tie) and P(B) for ln theta = ``width``."""
    first, second = (-np.logaddexp(0.0, width - sign * difference) for sign in (1.0, -1.0))
    with np.errstate(divide="ignore"):
        tie = first + second + np.log(np.expm1(2 * width))
    return np.stack([first, tie, second], axis=-1)


@dataclass(frozen=True)
class TieModel:
    """Parameters of :func:`probabilities`."""

    scale: float
    theta: float


def fit_tie_model(difference: npt.ArrayLike, preference: Sequence[str], start: TieModel) -> TieModel:
    """Fit scale and theta to labelled pairs by maximum likelihood, with a weak prior around ``start``.

    The prior is normal in ln(scale) and ln(ln(theta)) with deviation 1, so that values are finite with few pairs,
    without ties, or without errors.

    Args:
        difference: score of A minus score of B, [pairs].
        preference: 'a', 'b' or 'tie', [pairs].
        start: scale and theta without pairs; theta above 1.

    Raises:
        InputError: a label is unknown.
    """
    from scipy.optimize import minimize

    values = np.asarray(difference, dtype=np.float64)
    label = checked_preference(preference, len(values))
    outcome = np.where(label == "a", 0, np.where(label == "tie", 1, 2))
    if not len(values):
        return start
    prior = np.array([math.log(start.scale), math.log(math.log(start.theta))])

    def loss(point: FloatArray) -> float:
        scale, width = np.exp(np.clip(point, -30.0, 5.0))
        logs = _log_probabilities(scale * values, float(width))
        return float(-logs[np.arange(len(values)), outcome].sum() + 0.5 * ((point - prior) ** 2).sum())

    found = minimize(loss, prior, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000})
    scale, width = np.exp(np.clip(found.x, -30.0, 5.0))
    return TieModel(float(scale), float(np.exp(width)))


def calibrate(
    raw: npt.ArrayLike,
    names: Sequence[str],
    pairs: npt.ArrayLike,
    labels: Mapping[str, Sequence[str | None]],
    *,
    theta: float = 5.0,
    seen: SeenClips | None = None,
) -> Calibration:
    """Choose mean, deviation, tie thresholds and probabilities on held-out clips and pairs, never on a test set.

    Args:
        raw: output of the head for each held-out clip, [clips, dimensions].
        names: the dimensions.
        pairs: rows of ``raw`` of both clips, integers [pairs, 2].
        labels: 'a', 'b', 'tie' or None (no label), [pairs] each, by dimension and for 'total'; without labels, the
            theta of training is kept.
        theta: width of ties in training, in units of the head's output.
        seen: ranges of the training clips.

    Raises:
        InputError: there are too few clips, or the scores of a dimension are all equal or not finite.
    """
    values = np.asarray(raw, dtype=np.float64).reshape(-1, len(names))
    mean, deviation = _moments(values, names)
    calibration = Calibration(mean=mean, deviation=deviation)
    scores = standardised(values, names, calibration)
    all_scores = np.column_stack([scores, scores.mean(axis=1)])
    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    difference = all_scores[first] - all_scores[second]
    chosen: dict[str, dict[str, float]] = {"tie_threshold": {}, "scale": {}, "theta": {}}
    counts: dict[str, int] = {}
    for column, name in enumerate((*names, TOTAL)):
        given = labels.get(name) or [None] * len(difference)
        known = np.array([label is not None for label in given], dtype=bool)
        label = [one for one in given if one is not None]
        # Without pairs, use the scale of training, where differences were not divided by the deviation.
        start = TieModel(deviation.get(name, float(np.mean(list(deviation.values())))), max(theta, 1.0 + 1e-3))
        model = fit_tie_model(difference[known, column], label, start)
        counts[name] = len(label)
        chosen["scale"][name], chosen["theta"][name] = model.scale, model.theta
        if label:
            chosen["tie_threshold"][name] = pairwise_accuracy(difference[known, column], label).epsilon
    return calibration.model_copy(update={**chosen, "pairs": counts, "clips": len(values), "seen": seen})


def _moments(values: FloatArray, names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    if len(values) < 2:
        problem = f"{len(values)} held-out clips are too few to calibrate scores"
        raise InputError(problem, remedy="Hold out more clips", field="validation")
    for column, name in enumerate(names):
        if not np.isfinite(values[:, column]).all():
            raise InputError(
                f"dimension '{name}' has scores that are not finite numbers",
                remedy="Train with a lower learning rate",
                field=f"dimensions.{name}",
            )
    mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
    for column, name in enumerate(names):
        if deviation[column] <= 1e-12 * max(1.0, abs(mean[column])):
            raise InputError(
                f"dimension '{name}' has the same score for all {len(values)} held-out clips",
                remedy="Give labels of this dimension, or remove it",
                field=f"dimensions.{name}",
            )
    return dict(zip(names, mean.tolist(), strict=True)), dict(zip(names, deviation.tolist(), strict=True))


def tie_model(calibration: Calibration | None, name: str) -> TieModel:
    """Return the tie model of a dimension's scores, or of their mean ('total')."""
    if calibration is None:
        return TieModel(1.0, 5.0)
    default = calibration.deviation.get(name, float(np.mean(list(calibration.deviation.values()))))
    return TieModel(calibration.scale.get(name, default), calibration.theta.get(name, 5.0))


def reliability_table(probability: npt.ArrayLike, preference: Sequence[str], bins: int = 10) -> pd.DataFrame:
    """Compare predicted probabilities with human labels, in bins of equal width.

    Args:
        probability: P(A), P(tie), P(B), [pairs, 3].
        preference: 'a', 'b' or 'tie', [pairs].
        bins: number of bins.

    Returns:
        ``outcome`` ('better', with both clips of a pair, or 'tie'), ``low``, ``high``, ``n``, ``stated`` (mean
        probability) and ``observed`` (share) of every non-empty bin.

    Raises:
        InputError: a label is unknown.
    """
    stated = np.asarray(probability, dtype=np.float64).reshape(-1, 3)
    label = checked_preference(preference, len(stated))
    happened = (label[:, None] == np.array(LABELS)).astype(np.float64)
    rows = []
    for outcome, columns in (("better", [0, 2]), ("tie", [1])):
        predicted, seen = stated[:, columns].ravel(), happened[:, columns].ravel()
        at = np.minimum((predicted * bins).astype(np.int64), bins - 1)
        for number in np.unique(at):
            inside = at == number
            rows.append(
                {
                    "outcome": outcome,
                    "low": number / bins,
                    "high": (number + 1) / bins,
                    "n": int(inside.sum()),
                    "stated": float(predicted[inside].mean()),
                    "observed": float(seen[inside].mean()),
                }
            )
    return pd.DataFrame(rows, columns=["outcome", "low", "high", "n", "stated", "observed"])


def calibration_error(table: pd.DataFrame) -> float:
    """Return the mean |stated - observed| of a :func:`reliability_table`, weighted by n; NaN without rows."""
    if table.empty:
        return math.nan
    return float(np.average((table["stated"] - table["observed"]).abs(), weights=table["n"]))


def seen_clips(clips: Sequence[tuple[float, float, float]]) -> SeenClips:
    """Return the ranges of clips, each with rate of the frames in 1/s, area of a frame in pixels, and length in s."""
    rates, areas, lengths = zip(*clips, strict=True)

    def span(values: Sequence[float]) -> tuple[float, float]:
        return float(min(values)), float(max(values))

    return SeenClips(frames_per_second=span(rates), pixels=span(areas), seconds=span(lengths), clips=len(clips))


def outside_of(clip: SampledClip, seen: SeenClips | None) -> str:
    """Return in words what differs from the training clips; empty if nothing, or their ranges are unknown."""
    if seen is None:
        return ""
    found = []
    for name, unit, value, (low, high) in zip(
        ("frame rate", "area", "length"),
        ("/s", " pixels", " s"),
        shape_of(clip),
        (seen.frames_per_second, seen.pixels, seen.seconds),
        strict=True,
    ):
        if name != "area" and not clip.rate_known:
            continue
        if not low * (1 - TOLERANCE) <= value <= high * (1 + TOLERANCE):
            found.append(f"{name} {value:g}{unit} (trained on {low:g} to {high:g})")
    return ", ".join(found)
