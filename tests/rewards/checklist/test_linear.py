"""Weights: against independent optimisers, and what must not matter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from vr_pipeline.checklist import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.linear import dimension_scores, encode, score
from vr_pipeline.rewards.checklist.weights import RewardWeights


def simulated(pairs: int, truth: np.ndarray, seed: int, ties: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.2, 0.8, len(truth))
    a = (rng.random((pairs, len(truth))) < share).astype(float)
    b = (rng.random((pairs, len(truth))) < share).astype(float)
    label = np.where(rng.random(pairs) < 1 / (1 + np.exp(-(a - b) @ truth)), "a", "b").astype("U3")
    label[rng.random(pairs) < ties] = "tie"
    return a, b, label


def reference_fit(difference: np.ndarray, weight: np.ndarray, penalty: float) -> np.ndarray:
    """The same objective given to a general-purpose optimiser."""

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = difference @ w
        wrong = 1 / (1 + np.exp(z))
        value = weight @ np.logaddexp(0, -z) / weight.sum() + penalty / 2 * w @ w
        return value, -(weight * wrong) @ difference / weight.sum() + penalty * w

    return minimize(objective, np.zeros(difference.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-10}).x


def reference_removals(difference: np.ndarray, penalty: float) -> tuple[np.ndarray, list[int]]:
    columns, removed = list(range(difference.shape[1])), []
    while True:
        w = reference_fit(difference[:, columns], np.ones(len(difference)), penalty) if columns else np.zeros(0)
        if not columns or w.min() >= 0:
            full = np.zeros(difference.shape[1])
            full[columns] = w
            return full, removed
        removed.append(columns.pop(int(w.argmin())))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([1e-3, 1e-2, 0.3]))
def test_fit_and_removals_equal_a_plain_loop_around_another_optimiser(seed: int, penalty: float) -> None:
    truth = np.random.default_rng(seed).normal(0.3, 0.8, 7)
    a, b, label = simulated(150, truth, seed)
    fitted = fit_weights(a, b, label, penalty=penalty, bootstrap_samples=0)
    decided = label != "tie"
    difference = ((a - b) * np.where(label == "a", 1, -1)[:, None])[decided]
    expected, removed = reference_removals(difference, penalty)
    np.testing.assert_allclose(fitted.weights, expected, atol=2e-5)
    assert [removal["question_id"] for removal in fitted.removals] == [f"q{i + 1}" for i in removed]
    assert (fitted.weights >= 0).all()
    assert fitted.statistics["n_ties"] == int((label == "tie").sum())
    assert fitted.statistics["n_fitted"] == int(decided.sum())


def test_one_order_of_a_pair_gives_what_both_orders_give() -> None:
    from sklearn.linear_model import LogisticRegression

    a, b, label = simulated(300, np.array([1.0, 0.5, 2.0, 0.2]), 3, ties=0.0)
    fitted = fit_weights(a, b, label, penalty=0.01, nonnegative=False, bootstrap_samples=0)
    doubled = LogisticRegression(C=1 / (0.01 * 600), fit_intercept=False, tol=1e-10, max_iter=1000).fit(
        np.r_[a - b, b - a], np.r_[label == "a", label == "b"]
    )
    np.testing.assert_allclose(fitted.weights, doubled.coef_[0], atol=1e-4)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("bootstrap", ["score", "refit"])
def test_neither_order_of_pairs_nor_of_clips_matters(grouped: bool, bootstrap: str) -> None:
    a, b, label = simulated(120, np.array([1.0, -0.5, 2.0, 0.2, 0.0]), 5)
    rng = np.random.default_rng(0)
    groups = np.array([f"prompt {i % 9}" for i in range(120)])
    order, swap = rng.permutation(120), rng.random(120) < 0.5
    a2, b2 = np.where(swap[:, None], b, a)[order], np.where(swap[:, None], a, b)[order]
    turned = np.where(swap & (label != "tie"), np.where(label == "a", "b", "a"), label)[order]
    options = {"bootstrap": bootstrap, "bootstrap_samples": 20}
    one = fit_weights(a, b, label, groups=groups if grouped else None, **options)
    other = fit_weights(a2, b2, turned, groups=groups[order] if grouped else None, **options)
    assert one == other


def test_cross_validation_never_splits_a_prompt_and_prefers_the_penalty_that_predicts() -> None:
    # Each prompt has one pair many times over: were prompts split, the weakest penalty would seem best.
    rng = np.random.default_rng(1)
    a, b = rng.random((12, 30)), rng.random((12, 30))
    label = rng.choice(["a", "b"], 12)
    repeat = np.repeat(np.arange(12), 20)
    fitted = fit_weights(
        a[repeat], b[repeat], label[repeat], groups=repeat.astype(str), nonnegative=False, bootstrap_samples=0
    )
    assert fitted.statistics["penalty"] == 0.1
    split = fit_weights(a[repeat], b[repeat], label[repeat], nonnegative=False, bootstrap_samples=0)
    assert split.statistics["penalty"] < 0.1


def test_soft_labels_weigh_both_orders_by_their_share() -> None:
    a, b, _ = simulated(80, np.array([1.0, 0.5, 2.0]), 9)
    votes = np.random.default_rng(2).dirichlet([1, 1, 0.5], 80)[:, :2]
    fitted = fit_weights(a, b, ["a"] * 80, votes=votes, penalty=0.01, nonnegative=False, bootstrap_samples=0)
    expected = reference_fit(np.r_[a - b, b - a], np.r_[votes[:, 0], votes[:, 1]], 0.01)
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-5)


def test_losses_of_cross_validation_are_those_of_prompts_left_out() -> None:
    a, b, label = simulated(48, np.array([1.0, 0.5, 2.0]), 17, ties=0.0)
    prompts = np.arange(48) % 6
    fitted = fit_weights(a, b, label, groups=prompts.astype(str), penalties=(1e-2, 0.1, 1.0), folds=6)
    difference = (a - b) * np.where(label == "a", 1, -1)[:, None]
    for record in fitted.statistics["penalty_path"]:
        losses = np.empty(48)
        for prompt in range(6):
            out = prompts == prompt
            weights = reference_fit(difference[~out], np.ones((~out).sum()), record["penalty"])
            losses[out] = np.logaddexp(0, -difference[out] @ weights)
        assert record["log_loss"] == pytest.approx(losses.mean(), abs=1e-4)
    best = min(fitted.statistics["penalty_path"], key=lambda record: record["log_loss"])
    assert fitted.statistics["penalty"] == best["penalty"]


def test_constant_columns_and_separation_are_named() -> None:
    a = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    b = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    fitted = fit_weights(a, b, ["a", "a", "a"], question_ids=["good", "same", "never"])
    assert fitted.removed.tolist() == [False, True, True]
    assert [(r["question_id"], r["step"]) for r in fitted.removals] == [("same", 0), ("never", 0)]
    assert fitted.statistics["separated"] is True
    assert fitted.statistics["one_sided"] == ["good"]
    said = " | ".join(fitted.statistics["warnings"])
    for part in (
        "2 questions have the same answer within every pair",
        "order every pair correctly",
        "1 questions never contradict",
        "no interval",
    ):
        assert part in said
    with pytest.raises(InputError, match="never contradict a preference"):
        fit_weights(a, b, ["a", "a", "a"], penalty=0.0)
    with pytest.raises(InputError, match="repeat those to other questions"):
        fit_weights([[1, 1], [0, 0]], [[0, 0], [1, 1]], ["a", "a"], penalty=0.0, nonnegative=False)


def test_without_penalty_the_maximum_likelihood_is_found() -> None:
    a, b, label = simulated(400, np.array([1.0, 0.5, 2.0]), 21, ties=0.0)
    fitted = fit_weights(a, b, label, penalty=0.0, bootstrap_samples=0)
    difference = (a - b) * np.where(label == "a", 1, -1)[:, None]
    np.testing.assert_allclose(fitted.weights, reference_fit(difference, np.ones(400), 0.0), atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["tie", "tie"], "all 2 preferences are ties"),
        (["a", "left"], "row 2, field 'preference': unknown label 'left'"),
        (["a"], "1 labels for 2 pairs"),
    ],
)
def test_useless_labels_are_rejected(labels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_weights(np.eye(2), 1 - np.eye(2), labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": [[0.7, 0.4], [0.5, 0.5]]}, "votes are not two shares"),
        ({"votes": [[-0.1, 0.4], [0.5, 0.5]]}, "votes are not two shares"),
        ({"votes": [[0.5], [0.5]]}, "votes are not two shares"),
        ({"groups": ["p"]}, "do not have one entry per pair"),
        ({"penalties": [0.1, 0.0]}, "penalties must be above 0"),
        ({"bootstrap": "jackknife", "groups": ["p", "q"]}, "unknown bootstrap 'jackknife'"),
        ({"question_ids": ["q"]}, "1 question names for 2 columns"),
    ],
)
def test_useless_options_are_rejected(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_weights(np.eye(2), 1 - np.eye(2), ["a", "b"], **options)


def test_one_pair_is_enough_and_no_difference_is_not() -> None:
    fitted = fit_weights([[1.0, 0.0]], [[0.0, 1.0]], ["a"])
    assert fitted.weights[0] > 0
    assert fitted.removed.tolist() == [False, True]
    with pytest.raises(InputError, match="no answer differs"):
        fit_weights([[1.0, 0.0]], [[1.0, 0.0]], ["a"])
    with pytest.raises(InputError, match="infinite"):
        fit_weights([[np.inf]], [[1.0]], ["a"])
    with pytest.raises(InputError, match="shapes"):
        fit_weights([[1.0]], [[1.0, 0.0]], ["a"])


@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_json_gives_back_an_equal_object(seed: int) -> None:
    a, b, label = simulated(40, np.array([1.0, -0.5, 2.0]), seed)
    fitted = fit_weights(
        a, b, label, checklist_hash="abc", encoding="plus_minus", answers="binary", bootstrap_samples=20
    )
    again = RewardWeights.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again == fitted
    np.testing.assert_array_equal(again.ci_low, fitted.ci_low)
    assert again.kept == fitted.kept


@pytest.mark.parametrize("document", [{}, {"questions": {"q": {}}}, {"questions": [1]}, {"questions": {"q": 3}}])
def test_other_files_are_not_taken_for_weights(document: dict) -> None:
    with pytest.raises(InputError, match="not reward weights"):
        RewardWeights.from_json(document)


def test_weights_that_cannot_be_used_are_rejected() -> None:
    with pytest.raises(InputError, match="two weights"):
        RewardWeights(("a", "a"), [1.0, 2.0])
    with pytest.raises(InputError, match="3 values for 2"):
        RewardWeights(("a", "b"), [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="finite"):
        RewardWeights(("a",), [np.nan])
    with pytest.raises(InputError, match="intercept"):
        RewardWeights(("a",), [1.0], intercept=0.5)


def test_dimensions_add_up_to_the_total_and_hold_their_own_questions(checklist: Checklist) -> None:
    rng = np.random.default_rng(0)
    weights = RewardWeights(tuple(reversed(checklist.question_ids)), rng.random(16))
    answers = rng.random((50, 16))
    table = dimension_scores(answers, weights, checklist)
    assert list(table.columns) == [f"dim_{name}" for name in checklist.dimensions]
    np.testing.assert_allclose(table.sum(axis=1), score(answers, weights))
    for name in checklist.dimensions:
        ids = {question.question_id for question in checklist.questions_of(name)}
        mask = np.array([question in ids for question in weights.question_ids])
        np.testing.assert_allclose(table[f"dim_{name}"], answers[:, mask] @ weights.weights[mask])


def test_weights_of_another_checklist_are_rejected(checklist: Checklist) -> None:
    with pytest.raises(InputError, match="'strange', which is not in the checklist"):
        dimension_scores([[1.0]], RewardWeights(("strange",), [1.0]), checklist)


def test_encodings_rank_alike_and_a_gated_question_counts_nothing_in_either() -> None:
    rng = np.random.default_rng(0)
    answers, values = rng.integers(0, 2, (30, 6)).astype(float), rng.random(6)
    ids = tuple("abcdef")
    zero_one = score(answers, RewardWeights(ids, values))
    plus_minus = score(answers, RewardWeights(ids, values, encoding="plus_minus"))
    np.testing.assert_allclose(plus_minus, 2 * zero_one - values.sum())
    assert encode([np.nan, 1.0, 0.0], "zero_one").tolist() == [0.0, 1.0, 0.0]
    assert encode([np.nan, 1.0, 0.0], "plus_minus").tolist() == [0.0, 1.0, -1.0]
    with pytest.raises(InputError, match="unknown encoding 'signed'"):
        encode([1.0], "signed")  # type: ignore[arg-type]


@given(seed=st.integers(0, 1000), rows=st.integers(1, 40), columns=st.integers(1, 70))
def test_equal_answers_have_exactly_equal_rewards_wherever_they_stand(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    answers = np.repeat(rng.random((1, columns)), rows, axis=0)
    weights = RewardWeights(tuple(map(str, range(columns))), rng.random(columns))
    result = score(answers, weights)
    assert (result == result[0]).all()
    assert score(answers[0], weights) == result[0]
