"""Ratings of generators and correlations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.ratings import bradley_terry
from vr_pipeline.statistics.correlation import held_out_agreement, preference_correlations


def tournament(truth: np.ndarray, games: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(len(truth), 2, replace=False) for _ in range(games)])
    chance = 1 / (1 + np.exp(-(truth[pairs[:, 0]] - truth[pairs[:, 1]])))
    label = np.where(rng.random(games) < chance, "a", "b").astype("U3")
    label[::11] = "tie"
    names = np.array([f"g{i}" for i in range(len(truth))])
    return names[pairs[:, 0]], names[pairs[:, 1]], label, np.array([f"p{i % 40}" for i in range(games)])


@pytest.mark.parametrize("prior", [0.0, 20.0])
def test_ratings_maximise_the_likelihood(prior: float) -> None:
    first, second, label, prompts = tournament(np.array([0.0, 1.0, -0.5, 0.4]), 400, 0)
    table = bradley_terry(first, second, label, prompts, prior=prior, samples=0).set_index("generator")
    point = {"a": 1.0, "b": 0.0, "tie": 0.5}

    def loss(r: np.ndarray) -> float:
        d = np.array([r[int(a[1])] - r[int(b[1])] for a, b in zip(first, second, strict=True)])
        y = np.array([point[x] for x in label])
        return float((y * np.logaddexp(0, -d) + (1 - y) * np.logaddexp(0, d)).sum() + prior / 2 * r @ r)

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(table.loc[[f"g{i}" for i in range(4)], "rating"], best - best.mean(), atol=1e-4)
    assert table["points"].sum() == len(label)
    assert table["comparisons"].sum() == 2 * len(label)


def test_intervals_hold_the_truth_and_better_comes_first() -> None:
    truth = np.array([0.0, 1.0, -0.5, 0.4])
    table = bradley_terry(*tournament(truth, 4000, 1), samples=200)
    assert list(table["generator"]) == ["g1", "g3", "g0", "g2"]
    centred = truth - truth.mean()
    for row in table.itertuples():
        # Ties as half wins draw ratings together a little, so the interval is widened by that shrinkage.
        assert row.ci_low - 0.1 <= centred[int(row.generator[1])] <= row.ci_high + 0.1


def test_odds_of_ten_to_one_are_four_hundred_points_of_elo() -> None:
    label = np.where(np.arange(550) % 11, "a", "b")
    table = bradley_terry(["x"] * 550, ["y"] * 550, label, np.arange(550).astype(str), samples=1000)
    assert table["generator"].tolist() == ["x", "y"]
    assert table["rating"].tolist() == pytest.approx([math.log(10) / 2, -math.log(10) / 2], abs=1e-3)
    assert table["elo"].tolist() == pytest.approx([1700.0, 1300.0], abs=0.1)
    # The log odds of 550 independent comparisons have the variance 1 / (n p (1 - p)).
    half = 1.96 * math.sqrt(121 / 10 / 550) / 2
    assert ((table["ci_high"] - table["ci_low"]) / 2).tolist() == pytest.approx([half, half], rel=0.1)


def test_a_generator_without_a_finite_rating_has_none() -> None:
    table = bradley_terry(["x", "x"], ["y", "y"], ["a", "a"], ["p", "q"])
    assert table["rating"].isna().all()
    assert table["elo"].isna().all()
    assert table["generator"].tolist() == ["x", "y"]
    assert table["reason"].tolist() == ["won every comparison", "lost every comparison"]
    with pytest.raises(InputError, match="two generators"):
        bradley_terry(["x"], ["x"], ["a"], ["p"])


def test_generators_that_wins_do_not_link_both_ways_are_left_out() -> None:
    truth = np.array([0.0, 0.5, -0.5])
    first, second, label, prompts = tournament(truth, 300, 4)
    # w beats all of them, and u and v were only compared with each other.
    more = [("w", "g0", "a"), ("w", "g1", "a"), ("u", "v", "a"), ("v", "u", "a")]
    columns = [np.r_[old, [row[k] for row in more]] for k, old in enumerate((first, second, label))]
    table = bradley_terry(*columns, np.r_[prompts, ["p1"] * 4], samples=50)
    alone = bradley_terry(first, second, label, prompts, samples=50)
    pd.testing.assert_frame_equal(table.iloc[:3][["generator", "rating"]], alone[["generator", "rating"]])
    assert table["reason"].tolist() == [
        "",
        "",
        "",
        "won every comparison",
        *["not linked to the others by wins both ways"] * 2,
    ]
    assert np.isfinite(table["ci_low"][:3]).all()
    assert table["rating"][3:].isna().all()
    # A few contradictions that most replicates lack give a rating and no interval.
    rare = bradley_terry(["x"] * 10, ["y"] * 10, ["a"] * 9 + ["b"], np.arange(10).astype(str), samples=50)
    assert np.isfinite(rare["rating"]).all()
    assert rare["ci_low"].isna().all()


def test_correlations_do_not_depend_on_sides() -> None:
    rng = np.random.default_rng(0)
    d, label = rng.normal(size=50), rng.choice(["a", "b", "tie"], 50)
    turn = rng.random(50) < 0.5
    turned = np.where(turn, np.select([label == "a", label == "b"], ["b", "a"], "tie"), label)
    one, other = preference_correlations(d, label), preference_correlations(np.where(turn, -d, d), turned)
    assert one == pytest.approx(other)
    perfect = preference_correlations([1.0, -1.0], ["a", "b"])
    assert perfect == pytest.approx({"kendall": 1.0, "spearman": 1.0})
    for empty in (([0.0, 0.0], ["a", "b"]), ([1.0, 2.0], ["tie", "tie"]), ([], [])):
        assert all(math.isnan(value) for value in preference_correlations(*empty).values())


def test_held_out_figures_look_at_held_out_pairs_only() -> None:
    rng = np.random.default_rng(5)
    scores = pd.DataFrame(
        {
            "prompt_id": [f"p{i % 20}" for i in range(400)],
            "difference": rng.normal(size=400),
            "preference": rng.choice(["a", "b", "tie"], 400),
        }
    )
    scores["split"] = np.where(scores["prompt_id"].isin([f"p{i}" for i in range(6)]), "held_out", "fit")
    first = held_out_agreement(scores, samples=50)
    changed = scores.assign(difference=scores["difference"].where(scores["split"] == "held_out", 0.0))
    second = held_out_agreement(changed, samples=50)
    assert {k: first[k] for k in ("tau", "diff", "epsilon", "n")} == {
        k: second[k] for k in ("tau", "diff", "epsilon", "n")
    }
    assert first["n"] == 120
    assert first["tau_transferred"] <= first["tau"]
    for name in ("tau", "diff"):
        low, high = first["intervals"][name]
        assert low <= high
    assert first["no_interval"] == {}
    few = scores.assign(split=np.where(scores["prompt_id"].isin(["p1", "p2", "p3"]), "held_out", "fit"))
    assert held_out_agreement(few, samples=50)["intervals"]["tau"] == [None, None]
    assert "3 held-out prompts" in held_out_agreement(few, samples=50)["no_interval"]["tau"]
    # Prompts that share a clip are one unit: four of the six are linked here.
    clips = scores.assign(video_id_a=[f"a{i}" for i in range(400)], video_id_b=[f"b{i}" for i in range(400)])
    assert held_out_agreement(clips, samples=50) == first
    clips["video_id_a"] = np.where(clips["prompt_id"].isin(["p1", "p2", "p3"]), "shared", clips["video_id_a"])
    assert "4 held-out prompts" in held_out_agreement(clips, samples=50)["no_interval"]["diff"]
    # A threshold chosen on no pairs is none, and a score that is the same everywhere has no correlation.
    nothing = held_out_agreement(scores[scores["split"] == "held_out"], samples=20)
    assert nothing["tau_transferred"] is nothing["epsilon_transferred"] is None
    constant = held_out_agreement(scores.assign(difference=0.0), samples=20)
    assert constant["kendall"] is None
    assert constant["intervals"]["kendall"] == [None, None]
    with pytest.raises(InputError, match="not a finite number"):
        preference_correlations([1.0, np.inf], ["a", "b"])
    with pytest.raises(InputError, match="no held-out pairs"):
        held_out_agreement(scores.assign(split="fit"))
