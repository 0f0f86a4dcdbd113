"""Intervals of the weights: they cover, or there is none and a reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from vr_pipeline.rewards.checklist import intervals, regression
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.separation import likelihood_optimum
from vr_pipeline.rewards.checklist.weights import RewardWeights

TRUTH = np.array([0.4, 1.2, 0.8, 0.2, 0.0])


def simulated(
    pairs: int, truth: np.ndarray, seed: int, prompts: int, taste: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Binary answers, labels and prompts; ``taste`` is the deviation of a prompt's own weights from the common ones."""
    rng = np.random.default_rng(seed)
    prompt = np.arange(pairs) % prompts
    a, b = rng.integers(0, 2, (2, pairs, len(truth))).astype(float)
    own = truth + taste * rng.normal(size=(prompts, len(truth)))
    chance = 1 / (1 + np.exp(-((a - b) * own[prompt]).sum(axis=1)))
    return a, b, np.where(rng.random(pairs) < chance, "a", "b"), prompt.astype(str)


def reasons(weights: RewardWeights) -> dict[str, str]:
    return weights.statistics["no_interval"]


@pytest.mark.parametrize(
    ("pairs", "prompts", "penalty", "taste"),
    [(60, 60, 1e-2, 0.0), (120, 12, 1e-2, 0.0), (300, 15, 1e-3, 0.4), (400, 40, 3e-2, 0.0)],
)
def test_intervals_cover_the_truth_as_often_as_they_say(pairs: int, prompts: int, penalty: float, taste: float) -> None:
    held, given_ = 0, 0
    for seed in range(60):
        a, b, label, prompt = simulated(pairs, TRUTH, seed, prompts, taste)
        fitted = fit_weights(a, b, label, groups=prompt, penalty=penalty)
        there = np.isfinite(fitted.ci_low)
        held += int(((fitted.ci_low <= TRUTH) & (fitted.ci_high >= TRUTH))[there].sum())
        given_ += int(there.sum())
        assert (fitted.ci_low[there] >= 0).all()
        assert (fitted.ci_low[there] < fitted.ci_high[there]).all()
    assert given_ > 150
    assert held / given_ > 0.93


def test_both_ways_of_the_bootstrap_agree_and_with_the_textbook() -> None:
    a, b, label, prompt = simulated(3000, TRUTH + 0.2, 11, 3000)
    score, refit = (
        fit_weights(a, b, label, groups=prompt, penalty=1e-5, bootstrap=kind) for kind in ("score", "refit")
    )
    np.testing.assert_allclose(score.ci_low, refit.ci_low, atol=0.03)
    np.testing.assert_allclose(score.ci_high, refit.ci_high, atol=0.03)
    # The variance of the maximum likelihood estimate is the inverse of the information.
    z = a - b
    p = 1 / (1 + np.exp(-z @ score.weights))
    error = np.sqrt(np.diag(np.linalg.inv((z * (p * (1 - p))[:, None]).T @ z)))
    np.testing.assert_allclose((score.ci_high - score.ci_low) / 2, 1.96 * error, rtol=0.06)


def test_prompts_and_not_pairs_are_what_is_drawn() -> None:
    a, b, label, _ = simulated(60, np.array([1.0, 0.7]), 13, 60)
    repeat = np.repeat(np.arange(60), 16)
    options = {"penalty": 1e-3, "nonnegative": False}
    by_prompt = fit_weights(a[repeat], b[repeat], label[repeat], groups=repeat.astype(str), **options)
    by_pair = fit_weights(a[repeat], b[repeat], label[repeat], **options)
    width = (by_prompt.ci_high - by_prompt.ci_low) / (by_pair.ci_high - by_pair.ci_low)
    assert (width > 3.5).all()  # sixteen copies of a pair are one observation: four times the width


def separable_by_linear_program(z: np.ndarray, j: int) -> bool:
    """Is there a direction along which no pair is contradicted and question j has a part, up or down?"""
    for sign in (1.0, -1.0):
        cost = np.zeros(z.shape[1])
        cost[j] = -sign
        best = linprog(cost, A_ub=-z, b_ub=np.zeros(len(z)), bounds=(-1.0, 1.0)).fun
        if -best > 1e-6:
            return True
    return False


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 25), columns=st.integers(1, 5))
def test_determined_are_the_questions_without_part_in_any_direction_that_no_pair_contradicts(
    seed: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.integers(-1, 2, (rows, columns)).astype(float)
    if columns > 2 and seed % 2:
        z[:, 2] = z[:, 0] - z[:, 1]
    found = likelihood_optimum(z, np.ones(rows), np.zeros(columns))
    assert found.determined.tolist() == [not separable_by_linear_program(z, j) for j in range(columns)]
    if found.determined.all():
        # At the optimum the probabilities of the wrong clip balance the answers.
        wrong = 1 / (1 + np.exp(z @ found.weights))
        np.testing.assert_allclose(z.T @ wrong, 0.0, atol=1e-5)


def test_a_question_that_is_never_contradicted_loses_its_interval_and_the_others_keep_theirs() -> None:
    a, b, label, prompt = simulated(400, TRUTH[:3], 1, 40)
    preferred = np.where(label == "a", 1.0, -1.0)[:, None]
    never_wrong = np.maximum((a[:, :1] - b[:, :1]) * preferred, 0)
    a = np.c_[a, np.where(preferred > 0, never_wrong, 0)]
    b = np.c_[b, np.where(preferred < 0, never_wrong, 0)]
    fitted = fit_weights(a, b, label, groups=prompt)
    assert reasons(fitted)["q4"] == intervals.SEPARATED
    assert np.isnan(fitted.ci_low[3])
    assert np.isfinite(fitted.ci_low[1:3]).all()
    assert any("no interval" in warning and "q4" in warning for warning in fitted.statistics["warnings"])


def test_partial_separation_by_questions_together_is_found() -> None:
    a, b, label, prompt = simulated(300, TRUTH, 3, 30)
    keep = ((a - b)[:, 1] + (a - b)[:, 2]) * np.where(label == "a", 1, -1) >= 0  # each alone is contradicted
    fitted = fit_weights(a[keep], b[keep], label[keep], groups=prompt[keep], nonnegative=False)
    assert not fitted.statistics["separated"]
    assert fitted.statistics["one_sided"] == []
    assert {name for name, reason in reasons(fitted).items() if reason == intervals.SEPARATED} >= {"q2", "q3"}


def test_repeated_questions_share_a_weight_that_nothing_determines() -> None:
    a, b, label, prompt = simulated(400, TRUTH, 2, 40)
    fitted = fit_weights(
        np.c_[a, a[:, 1], a[:, 0]], np.c_[b, b[:, 1], 1 - a[:, 0]], label, groups=prompt, nonnegative=False
    )
    assert reasons(fitted)["q2"] == reasons(fitted)["q6"] == intervals.COLLINEAR
    assert np.isfinite(fitted.ci_low[2])


def test_too_few_prompts_pairs_or_preferences_give_no_interval() -> None:
    a, b, label, _ = simulated(400, TRUTH, 2, 40)
    for prompts, said in ((1, "only 1 prompts"), (4, "only 4 prompts")):
        fitted = fit_weights(a, b, label, groups=(np.arange(400) % prompts).astype(str))
        assert all(said in reason for reason in reasons(fitted).values())
        assert np.isnan(fitted.ci_low).all()
        assert set(reasons(fitted)) == set(fitted.kept)
    # Seven preferences, as the tutorial has.
    fitted = fit_weights(a[:7], b[:7], label[:7], groups=np.arange(7).astype(str))
    assert np.isnan(fitted.ci_low).all()
    assert set(reasons(fitted)) == set(fitted.kept)
    # More questions than pairs.
    rng = np.random.default_rng(0)
    wide = fit_weights(rng.integers(0, 2, (20, 60)), rng.integers(0, 2, (20, 60)), rng.choice(["a", "b"], 20))
    assert np.isnan(wide.ci_low).all()


def test_one_contradiction_hangs_on_its_prompt() -> None:
    a = np.r_[np.tile([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], (10, 1)), [[0.0, 0.0]]]
    b = np.r_[np.tile([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]], (10, 1)), [[1.0, 0.0]]]
    label = np.array(["a", "a", "b"] * 10 + ["a"])
    for kind in ("score", "refit"):
        fitted = fit_weights(a, b, label, bootstrap=kind, penalty=1e-3, nonnegative=False)
        assert reasons(fitted)["q1"] == intervals.FRAGILE


def test_a_weight_that_the_penalty_sets_has_no_interval() -> None:
    a, b, label, prompt = simulated(2000, TRUTH, 4, 100)
    fitted = fit_weights(a, b, label, groups=prompt, penalty=0.3)
    assert reasons(fitted)["q2"] == intervals.PENALISED
    free = fit_weights(a, b, label, groups=prompt, penalty=1e-4)
    assert reasons(free) == {}


def test_a_penalty_at_the_edge_of_its_grid_is_said() -> None:
    a, b, label, prompt = simulated(300, TRUTH, 5, 30)

    def warnings(**options) -> str:
        return " | ".join(fit_weights(a, b, label, bootstrap_samples=0, **options).statistics["warnings"])

    assert "penalty 1 is the weakest of its grid" in warnings(groups=prompt, penalties=(1.0, 10.0))
    assert "penalty 1e-06 is the strongest of its grid" in warnings(groups=prompt, penalties=(1e-7, 1e-6))
    assert "grid" not in warnings(groups=prompt, penalties=(1e-7, 3e-3, 10.0))
    assert "could not choose the penalty" in warnings(groups=["p"] * 300)
    assert "penalty" not in warnings(penalty=1.0)


@pytest.mark.parametrize("penalty", [1e-4, 0.1])
def test_more_questions_than_pairs_are_solved_by_rows_alike(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 30, 80))
    label = rng.choice(["a", "b"], 30)
    fast = fit_weights(a, b, label, penalty=penalty, bootstrap_samples=0)
    by_columns = regression._Solver.fit

    def slow(self, columns, penalty, start, *, tolerance=1e-8):
        # Zero rows change nothing but the shape.
        nothing = np.zeros((100, self.features.shape[1]))
        features = np.r_[self.features * np.where(self.label, 1, -1)[:, None], nothing]
        wide = regression._Solver(features, np.r_[self.weight, np.full(100, 1e-300)])
        return by_columns(wide, columns, penalty, start, tolerance=tolerance)

    monkeypatch.setattr(regression._Solver, "fit", slow)
    expected = fit_weights(a, b, label, penalty=penalty, bootstrap_samples=0)
    np.testing.assert_allclose(fast.weights, expected.weights, atol=1e-7)
    assert [r["question_id"] for r in fast.removals] == [r["question_id"] for r in expected.removals]


def test_order_of_pairs_and_sides_does_not_matter_to_intervals() -> None:
    a, b, label, prompt = simulated(150, TRUTH, 6, 15)
    rng = np.random.default_rng(0)
    order, swap = rng.permutation(150), rng.random(150) < 0.5
    turned = np.where(swap, np.where(label == "a", "b", "a"), label)
    one = fit_weights(a, b, label, groups=prompt)
    other = fit_weights(
        np.where(swap[:, None], b, a)[order], np.where(swap[:, None], a, b)[order], turned[order], groups=prompt[order]
    )
    assert one == other
    assert not reasons(one)


def test_repeated_questions_are_found_whatever_their_sign_and_place() -> None:
    a, b, label, prompt = simulated(600, TRUTH[:3] + 0.5, 8, 60)
    fitted = fit_weights(np.c_[a[:, 1], a], np.c_[b[:, 1], b], label, groups=prompt)
    assert set(reasons(fitted)) == {"q1", "q3"}
    assert fitted.weights[0] == pytest.approx(fitted.weights[2])


def test_prompts_that_all_say_the_same_have_no_spread() -> None:
    a, b = np.ones((40, 1)), np.zeros((40, 1))
    votes = np.tile([0.8, 0.2], (40, 1))  # every pair alike: log odds ln 4, and no width
    fitted = fit_weights(a, b, ["a"] * 40, votes=votes, penalty=1e-9)
    assert fitted.weights[0] == pytest.approx(np.log(4), abs=1e-6)
    assert reasons(fitted) == {"q1": intervals.ALIKE}
