"""Probabilities of comparisons, what is chosen on held-out pairs, and clips that are unlike those of training."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward.calibration import (
    LABELS,
    TieModel,
    calibrate,
    calibration_error,
    fit_tie_model,
    outside_of,
    probabilities,
    reliability_table,
    seen_clips,
    standardised,
    tie_model,
)
from vr_pipeline.rewards.videoreward.settings import Calibration, SeenClips
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.video.sampled import Sampling, sample_clip, shape_of

NAMES = ("visual", "text")


def drawn(difference: np.ndarray, scale: float, theta: float, seed: int = 0) -> list[str]:
    """Labels of people who follow the model."""
    random = np.random.default_rng(seed)
    stated = probabilities(difference, theta, scale)
    return [str(random.choice(LABELS, p=one / one.sum())) for one in stated]


def test_the_papers_probabilities_at_no_difference_and_where_ties_end() -> None:
    np.testing.assert_allclose(probabilities(0.0, 5.0), [1 / 6, 2 / 3, 1 / 6])
    # A tie is likelier than the win up to a difference of 1.526.
    p_a, p_tie, _ = probabilities(math.log((5.0**2 - 2) / 5.0), 5.0)
    assert p_a == pytest.approx(p_tie)
    np.testing.assert_allclose(probabilities([-3.0, 2.0], 1.0)[:, 1], 0.0, atol=1e-12)


@given(difference=st.floats(-800, 800), theta=st.floats(1.0, 1e4), scale=st.floats(1e-3, 1e3))
def test_probabilities_are_some_symmetric_and_follow_the_difference(
    difference: float, theta: float, scale: float
) -> None:
    p_a, p_tie, p_b = probabilities(difference, theta, scale)
    assert min(p_a, p_tie, p_b) >= 0.0
    assert p_a + p_tie + p_b == pytest.approx(1.0)
    np.testing.assert_allclose(probabilities(-difference, theta, scale), [p_b, p_tie, p_a], atol=1e-12)
    assert (p_a >= p_b) == (difference >= 0) or p_a == pytest.approx(p_b)
    if abs(scale * difference) < 30:
        expected = (theta**2 - 1) * p_a * p_b
        assert p_tie == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("scale", "theta"), [(0.5, 1.5), (2.0, 5.0), (1.0, 12.0)])
def test_scale_and_theta_of_the_labels_are_found(scale: float, theta: float) -> None:
    difference = np.random.default_rng(1).normal(0, 2, 6000)
    found = fit_tie_model(difference, drawn(difference, scale, theta), TieModel(1.0, 5.0))
    assert found.scale == pytest.approx(scale, rel=0.08)
    assert found.theta == pytest.approx(theta, rel=0.08)


@pytest.mark.parametrize(
    "labels", [["a"] * 3, ["tie"] * 3, ["b"] * 3, []], ids=["all right", "all ties", "all wrong", "none"]
)
def test_few_or_odd_pairs_give_no_extremes(labels: list[str]) -> None:
    found = fit_tie_model(np.ones(len(labels)), labels, TieModel(1.0, 5.0))
    assert 0.05 < found.scale < 20
    assert 1.0 < found.theta < 200
    if not labels:
        assert found == TieModel(1.0, 5.0)


def held_out(seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict[str, list[str | None]]]:
    random = np.random.default_rng(seed)
    raw = random.normal([3.0, -1.0], [2.0, 0.5], (300, 2))
    pairs = random.integers(0, 300, (900, 2))
    difference = raw[pairs[:, 0]] - raw[pairs[:, 1]]
    return raw, pairs, {"visual": [*drawn(difference[:, 0], 1.0, 3.0)]}


def test_everything_is_chosen_on_the_held_out_pairs() -> None:
    raw, pairs, labels = held_out()
    labels["text"] = [None] * len(pairs)
    found = calibrate(raw, NAMES, pairs, labels, theta=4.0)
    np.testing.assert_allclose(standardised(raw, NAMES, found).mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(standardised(raw, NAMES, found).std(axis=0, ddof=1), 1.0)
    scores = standardised(raw, NAMES, found)[:, 0]
    difference = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    best = pairwise_accuracy(difference, labels["visual"])  # type: ignore[arg-type]
    assert found.tie_threshold == {"visual": best.epsilon}
    # The labels follow the head's own differences, whatever mean and deviation are.
    assert found.scale["visual"] == pytest.approx(found.deviation["visual"], rel=0.1)
    assert found.theta["visual"] == pytest.approx(3.0, rel=0.1)
    # Without labels a difference counts as in training.
    assert found.theta["text"] == pytest.approx(4.0)
    assert found.scale["text"] == pytest.approx(found.deviation["text"])
    assert found.pairs == {"visual": 900, "text": 0, "total": 0}
    assert found.clips == 300
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    ties = tie_model(found, "visual")
    assert (
        calibration_error(reliability_table(probabilities(difference, ties.theta, ties.scale), labels["visual"])) < 0.05
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((1, 2)), "1 held-out clips are too few"),
        (np.column_stack([np.arange(5.0), np.full(5, 2.0)]), "'text' has the same score for all 5 held-out clips"),
        (np.column_stack([np.full(5, np.nan), np.arange(5.0)]), "'visual' has scores that are not finite"),
    ],
)
def test_clips_that_give_no_scale_are_an_error(raw: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(raw, NAMES, np.zeros((0, 2), int), {})


def test_reliability_counts_every_statement_once() -> None:
    stated = np.array([[0.8, 0.15, 0.05], [0.1, 0.35, 0.55], [0.25, 0.5, 0.25]])
    table = reliability_table(stated, ["a", "tie", "tie"], bins=2)
    by = table.set_index(["outcome", "low"])
    assert by.loc[("better", 0.0), "n"] == 4
    assert by.loc[("better", 0.5), "n"] == 2
    assert by.loc[("better", 0.5), "observed"] == 0.5
    assert by.loc[("better", 0.5), "stated"] == pytest.approx((0.8 + 0.55) / 2)
    assert by.loc[("tie", 0.0), "observed"] == 0.5
    assert by.loc[("tie", 0.5), "observed"] == 1.0
    assert math.isnan(calibration_error(reliability_table(np.zeros((0, 3)), [])))


def test_unknown_labels_are_named() -> None:
    with pytest.raises(InputError, match=r"row 2.*unknown label 'A'"):
        fit_tie_model([1.0, 2.0], ["a", "A"], TieModel(1.0, 5.0))
    with pytest.raises(InputError, match="unknown label 'same'"):
        reliability_table(np.full((1, 3), 1 / 3), ["same"])


def clip(frames: int = 8, size: int = 32, fps: float | None = 4.0) -> Any:
    return sample_clip(np.zeros((frames, size, size, 3), np.uint8), "", Sampling(), fps=fps)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({}, ""),
        ({"frames": 16}, ""),
        ({"frames": 24}, r"length 6 s \(trained on 2 to 4\)"),
        ({"fps": 16.0}, r"frame rate 16/s \(trained on 4 to 4\), length 0\.5 s"),
        ({"size": 64}, r"area 4096 pixels \(trained on 1024 to 1024\)"),
        ({"fps": None, "frames": 24}, ""),
    ],
)
def test_clips_unlike_training_are_named(other: dict[str, Any], words: str) -> None:
    seen = seen_clips([shape_of(clip()), shape_of(clip(16))])
    found = outside_of(clip(**other), seen)
    assert re.match(words, found) if words else found == ""
    assert outside_of(clip(**other), None) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"deviation": {"visual": 0.0, "text": 1.0}},
        {"mean": {"visual": float("nan"), "text": 1.0}},
        {"theta": {"visual": 0.5}},
        {"tie_threshold": {"total": -1.0}},
        {"scale": {"total": float("inf")}},
    ],
)
def test_a_calibration_that_means_nothing_is_rejected(wrong: dict[str, Any]) -> None:
    right = {"mean": {"visual": 0.0, "text": 0.0}, "deviation": {"visual": 1.0, "text": 1.0}}
    Calibration.model_validate(right)
    with pytest.raises(ValidationError):
        Calibration.model_validate(right | wrong)


def test_ranges_are_lowest_and_highest() -> None:
    found = seen_clips([(2.0, 100, 5.0), (4.0, 50, 1.0)])
    assert found == SeenClips(frames_per_second=(2, 4), pixels=(50, 100), seconds=(1, 5), clips=2)
