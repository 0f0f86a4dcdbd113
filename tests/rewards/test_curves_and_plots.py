"""The accuracy curve, and that every picture can be drawn from ordinary and from poor data."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from vr_pipeline.checklist import Checklist
from vr_pipeline.rewards import plots
from vr_pipeline.rewards.checklist.curves import accuracy_curve
from vr_pipeline.rewards.checklist.deviations import sub_dimension_deviations
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.linear import score
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.schemas import AccuracyCurve
from vr_pipeline.statistics.agreement import pairwise_accuracy


def drawn(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@pytest.fixture(scope="module")
def compared() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.array([3.0, 1.5, 0.8, 0.0, 0.0])
    a, b = rng.integers(0, 2, (2, 900, 5)).astype(float)
    label = np.where(rng.random(900) < 1 / (1 + np.exp(-(a - b) @ truth)), "a", "b")
    return a, b, label, np.array([f"p{i % 30}" for i in range(900)])


def test_curve_ends_at_the_full_reward_and_starts_with_the_best_question(compared: tuple) -> None:
    a, b, label, prompts = compared
    weights = fit_weights(a[:600], b[:600], label[:600], bootstrap_samples=0)
    curve = accuracy_curve(a[:600], b[:600], label[:600], a[600:], b[600:], label[600:], prompts[600:], weights)
    AccuracyCurve.validate(curve.assign(answers="binary"))
    kept = len(weights.kept)
    assert set(curve["n_questions"]) == set(range(1, kept + 1))
    last = curve[(curve["n_questions"] == kept) & (curve["weighting"] == "learned")].iloc[0]
    full = pairwise_accuracy(score(a[600:], weights) - score(b[600:], weights), label[600:])
    assert (last["diff"], last["tau"]) == (full.diff, full.tau)
    refitted = curve[(curve["n_questions"] == kept) & (curve["weighting"] == "refitted")].iloc[0]
    assert refitted["diff"] == pytest.approx(full.diff, abs=0.01)
    assert curve.iloc[0]["last_question"] == "q1"
    # One question of equal and of learned weight order every pair alike.
    assert curve[curve["n_questions"] == 1]["diff"].nunique() == 1


def test_weights_picture_names_every_question(checklist: Checklist) -> None:
    rng = np.random.default_rng(1)
    removed = np.arange(16) % 5 == 0
    weights = RewardWeights(
        tuple(checklist.question_ids), np.where(removed, 0, rng.random(16)), np.zeros(16), np.ones(16), removed
    )
    figure = plots.weights_by_dimension(weights, checklist)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == checklist.question_ids
    assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} == {*checklist.dimensions, "removed"}
    assert drawn(figure) == drawn(plots.weights_by_dimension(weights, checklist))
    drawn(plots.weights_by_dimension(RewardWeights(tuple(checklist.question_ids), np.zeros(16)), checklist))


def test_calibrated_preferences_lie_on_the_diagonal() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(0, 2, 20_000)
    label = np.where(rng.random(20_000) < 1 / (1 + np.exp(-d)), "a", "b")
    line = plots.preference_calibration(d, label).axes[0].lines[1]
    np.testing.assert_allclose(line.get_ydata(), line.get_xdata(), atol=0.03)
    for n in (0, 1, 3):
        drawn(plots.preference_calibration(d[:n], label[:n]))
    drawn(plots.preference_calibration(np.zeros(9), ["a"] * 9))


def test_other_pictures_are_drawn(checklist: Checklist) -> None:
    rng = np.random.default_rng(3)
    curve = pd.DataFrame(
        {
            "n_questions": [1, 2],
            "weighting": "learned",
            "diff": [0.6, 0.7],
            "diff_se": [0.1, np.nan],
            "answers": "binary",
        }
    )
    drawn(plots.accuracy_by_questions(curve))
    answers = rng.random((20, 16))
    answers[:, 2] = 1.0  # never different: no correlation
    answers[3, 4] = np.nan
    image = plots.question_correlation(answers, checklist).axes[0].images[0].get_array()
    expected = np.corrcoef(np.nan_to_num(answers[:, [0, 5]]).T)[0, 1]
    assert image[0, 5] == pytest.approx(expected)
    assert np.ma.getmaskarray(image)[2].all()
    deviations = sub_dimension_deviations(
        answers[:10], answers[10:], checklist.question_ids, checklist, [f"p{i % 3}" for i in range(10)]
    )
    drawn(plots.deviations_by_sub_dimension({"dpo": deviations, "mpo": deviations}))
