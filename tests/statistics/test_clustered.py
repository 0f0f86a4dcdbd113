"""Means, gains and intervals: against formulas worked out otherwise and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vr_pipeline.checklist import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.deviations import policy_deviations, sub_dimension_deviations
from vr_pipeline.statistics.clustered import (
    MINIMUM_PROMPTS,
    bootstrap_by_prompt,
    clustered_mean,
    linked_prompts,
    paired_gain,
    simultaneous,
    win_rate,
)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_one_clip_a_prompt_is_the_ordinary_standard_error(values: list[float]) -> None:
    result = clustered_mean(values, [f"p{i}" for i in range(len(values))])
    assert result.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert result.se == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-9)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12), st.integers(1, 6))
def test_equal_prompts_have_the_standard_error_of_their_means(means: list[float], clips: int) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(means), clips))
    noise -= noise.mean(axis=1, keepdims=True)
    values = (np.array(means)[:, None] + noise).ravel()
    result = clustered_mean(values, np.repeat(np.arange(len(means)), clips))
    assert result.se == pytest.approx(stats.sem(means), abs=1e-9)


def test_one_prompt_has_no_standard_error() -> None:
    result = clustered_mean([1.0, 2.0], ["p", "p"])
    assert result.to_json() == {
        "mean": 1.5,
        "se": None,
        "ci_low": None,
        "ci_high": None,
        "n": 2,
        "n_prompts": 1,
        "no_interval": "1 prompts; an interval needs 5",
    }


def test_gain_is_the_paired_t_interval_over_prompts() -> None:
    rng = np.random.default_rng(1)
    prompts = np.repeat([f"p{i}" for i in range(9)], 5)
    baseline, policy = rng.normal(size=45), rng.normal(0.5, 1, 45)
    gain = paired_gain(policy, prompts, baseline, prompts)
    after, before = policy.reshape(9, 5).mean(axis=1), baseline.reshape(9, 5).mean(axis=1)
    interval = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (gain.ci_low, gain.ci_high) == pytest.approx((interval.low, interval.high))
    assert gain.mean == pytest.approx((after - before).mean())


@pytest.mark.parametrize(("prompts", "truth"), [(6, 0.0), (6, 1.5), (16, 0.8), (40, -0.5)])
def test_effect_size_is_the_standardised_mean_and_its_interval_covers_it(prompts: int, truth: float) -> None:
    rng = np.random.default_rng(prompts)
    names, repetitions, covered = [f"p{i}" for i in range(prompts)], 300, 0
    for _ in range(repetitions):
        gains = rng.normal(truth, 1.0, prompts) * 3.7
        effect, low, high = paired_gain(gains, names, np.zeros(prompts), names).effect()
        assert effect == pytest.approx(gains.mean() / gains.std(ddof=1))
        assert low < effect < high
        covered += low <= truth <= high
    assert abs(covered / repetitions - 0.95) < 4 * math.sqrt(0.95 * 0.05 / repetitions)


def test_effect_size_has_no_interval_where_the_gain_has_none_and_turns_with_its_sign() -> None:
    few = [f"p{i}" for i in range(4)]
    assert all(map(math.isnan, paired_gain([1.0, 2.0, 3.0, 5.0], few, np.zeros(4), few).effect()))
    names, gains = [f"p{i}" for i in range(9)], np.array([0.1, 0.4, -0.2, 0.9, 0.3, 0.2, 0.8, 0.5, 0.1])
    effect, low, high = paired_gain(gains, names, np.zeros(9), names).effect()
    assert paired_gain(-gains, names, np.zeros(9), names).effect() == pytest.approx((-effect, -high, -low))
    # The whole interval is above 0 exactly where that of the gain is.
    assert (low > 0) == (paired_gain(gains, names, np.zeros(9), names).ci_low > 0)
    # Against the distribution of scipy, which is exact where its values are not too large.
    shifts = np.sqrt(9) * np.array([low, high])
    assert stats.nct.cdf(3 * effect, 8, shifts) == pytest.approx([0.975, 0.025], abs=1e-3)
    large = paired_gain(gains + 1e4, names, np.zeros(9), names).effect()
    assert 0.4 * large[0] < large[1] < large[0] < large[2] < 1.6 * large[0]


def test_gain_does_not_ask_for_equal_numbers_of_clips_but_for_the_same_prompts() -> None:
    gain = paired_gain([1.0, 3.0, 5.0], ["p", "p", "q"], [1.0, 1.0], ["p", "q"])
    assert gain.mean == pytest.approx(((2.0 - 1.0) + (5.0 - 1.0)) / 2)
    alone = paired_gain([1.0, 3.0], ["p", "p"], [1.0], ["p"])
    assert alone.to_json()["no_interval"] == "1 prompts; an interval needs 5"
    assert alone.to_json()["ci_low"] is alone.to_json()["se"] is None
    with pytest.raises(InputError, match="prompt 'q' was evaluated for only one policy"):
        paired_gain([1.0], ["p"], [1.0, 2.0], ["p", "q"])


def test_gain_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    prompts = np.repeat(np.arange(12).astype(str), 4)
    covered = 0
    for _ in range(400):
        own, effect = rng.normal(size=12), rng.normal(0.3, 0.5, 12)
        baseline = np.repeat(own, 4) + rng.normal(size=48)
        policy = np.repeat(own + effect, 4) + rng.normal(size=48)
        gain = paired_gain(policy, prompts, baseline, prompts)
        covered += gain.ci_low <= 0.3 <= gain.ci_high
    assert 0.92 <= covered / 400 <= 0.98


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=30), st.integers(4, 9))
def test_win_rate_stays_within_its_interval_and_the_interval_within_zero_and_one(
    values: list[float], prompts: int
) -> None:
    result = win_rate(values, [f"p{i % prompts}" for i in range(len(values))])
    if result.n_prompts < MINIMUM_PROMPTS:
        assert math.isnan(result.ci_low)
        return
    assert 0 <= result.ci_low <= result.rate <= result.ci_high <= 1
    assert result.ci_low < result.ci_high
    assert result.wins + result.ties + result.losses == len(values)
    assert result.rate == pytest.approx((result.wins + result.ties / 2) / len(values))


def test_win_rate_of_independent_comparisons_is_wilsons() -> None:
    values = [1.0] * 14 + [-1.0] * 6
    result = win_rate(values, np.arange(20).astype(str))
    # With the quantile of Student's t in place of the normal one.
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, 19)) - 1
    wilson = stats.binomtest(14, 20).proportion_ci(level, method="wilson")
    assert (result.ci_low, result.ci_high) == pytest.approx((wilson.low, wilson.high))


def test_comparisons_of_one_prompt_that_agree_count_as_one() -> None:
    values, prompts = np.array([1.0] * 14 + [-1.0] * 6), np.arange(20)
    once, often = win_rate(values, prompts), win_rate(np.repeat(values, 7), np.repeat(prompts, 7))
    assert (often.ci_low, often.ci_high) == pytest.approx((once.ci_low, once.ci_high))
    assert (often.wins, often.losses, often.n_prompts) == (98, 42, 20)
    # Clips of a prompt that differ as much as clips of different prompts are observations of their own.
    mixed = win_rate(np.tile([1.0, -1.0], 70), np.repeat(prompts, 7))
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, 19)) - 1
    wilson = stats.binomtest(70, 140).proportion_ci(level, method="wilson")
    assert (mixed.ci_low, mixed.ci_high) == pytest.approx((wilson.low, wilson.high))


def test_differences_within_the_tolerance_are_ties() -> None:
    result = win_rate([2.0, 1.0, -1.0, -2.0, 0.0], list("abcde"), tolerance=1.0)
    assert (result.wins, result.ties, result.losses) == (1, 3, 1)
    assert win_rate([1e-12, -1e-12], ["p", "q"]).ties == 2
    assert win_rate([], []).to_json()["rate"] is None


def test_bootstrap_draws_prompts() -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(size=40)
    values, prompts = np.repeat(means, 10), np.repeat(np.arange(40), 10)
    low, high = bootstrap_by_prompt(lambda rows: float(values[rows].mean()), prompts, samples=2000)
    assert (high - low) / 2 == pytest.approx(1.96 * stats.sem(means), rel=0.12)
    again = bootstrap_by_prompt(lambda rows: float(values[rows].mean()), prompts, samples=2000)
    assert (again == [low, high]).all()
    assert np.isnan(bootstrap_by_prompt(lambda rows: 1.0, ["p", "p"])).all()
    for constant in (["p", "q"], list("abcdefgh")):  # too few, or no spread at all
        assert np.isnan(bootstrap_by_prompt(lambda rows: 1.0, constant, samples=20)).all()


def test_bootstrap_gives_several_figures_and_leaves_out_replicates_without_one() -> None:
    values = np.arange(10.0)

    def figures(rows: np.ndarray) -> list[float]:
        return [values[rows].mean(), math.nan if (rows == 9).sum() > 4 else values[rows].max() + values[rows].mean()]

    prompts = np.arange(10).astype(str)
    interval = bootstrap_by_prompt(figures, prompts, samples=300, seed=5)
    assert interval.shape == (2, 2)
    np.testing.assert_array_equal(
        interval[:, 0], bootstrap_by_prompt(lambda rows: values[rows].mean(), prompts, samples=300, seed=5)
    )
    assert np.isfinite(interval[:, 1]).all()
    assert np.isnan(bootstrap_by_prompt(lambda rows: [1.0, math.nan], prompts, samples=5)).all()
    # A figure that most replicates do not have has no interval.
    rare = bootstrap_by_prompt(lambda rows: math.nan if 9 not in rows else values[rows].mean(), prompts, samples=50)
    assert np.isnan(rare).all()


@pytest.mark.parametrize("prompts", [5, 14, 30])
def test_intervals_of_the_bootstrap_cover_with_few_prompts(prompts: int) -> None:
    """A share near its end and a correlation, whose percentile intervals are too narrow with so few."""
    held = np.zeros(3)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        prompt = np.repeat(np.arange(prompts), 6)
        right = rng.random(6 * prompts) < rng.beta(8, 2, prompts)[prompt]
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 6 * prompts).T
        low, high = bootstrap_by_prompt(
            lambda rows, right=right, x=x, y=y: [
                right[rows].mean(),
                np.corrcoef(x[rows], y[rows])[0, 1],
                x[rows].mean(),
            ],
            prompt,
            kinds=("share", "correlation", "number"),
            samples=60,
            seed=seed,
        )
        held += (low <= [0.8, 0.6, 0.0]) & (np.array([0.8, 0.6, 0.0]) <= high)
    assert (held >= 88).all(), held


def test_several_intervals_hold_together_as_often_as_they_say() -> None:
    together = 0
    for seed in range(300):
        values = np.random.default_rng(seed).normal(size=(12, 10))
        means = [clustered_mean(column, np.arange(12), level=simultaneous(10)) for column in values.T]
        together += all(mean.ci_low <= 0 <= mean.ci_high for mean in means)
    assert together / 300 > 0.92
    assert simultaneous(1) == pytest.approx(0.95)


def test_people_who_judge_are_drawn_too_where_they_are_crossed_with_prompts() -> None:
    d, prompts = np.array([1.0, -1.0] * 20), np.repeat(np.arange(20), 2)
    alone, crossed = win_rate(d, prompts), win_rate(d, prompts, crossed=(0.03, 6))
    assert crossed.rate == alone.rate == 0.5
    assert crossed.ci_high - crossed.ci_low > 1.2 * (alone.ci_high - alone.ci_low)
    assert math.isnan(win_rate(d, prompts, crossed=(0.01, 4)).ci_low)


def test_prompts_that_share_a_clip_are_one_unit() -> None:
    units = linked_prompts(["p", "q", "r", "s", "p"], list("acefx"), list("bdagy"))
    assert units.tolist() == ["p", "q", "p", "s", "p"]
    alone = linked_prompts(["p", "q"], ["a", "b"], ["c", "d"])
    assert alone.tolist() == ["p", "q"]


def test_deviations_are_differences_of_the_share_of_yes(checklist: Checklist) -> None:
    n = len(checklist.question_ids)
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 2, (2, 30, n)).astype(float)
    first[:, 3] = np.nan  # gated: counts 0
    prompts = [f"p{i % 6}" for i in range(30)]
    table = sub_dimension_deviations(first, second, checklist.question_ids, checklist, prompts)
    assert list(table["sub_dimension"]) == [sub.name for sub in checklist.sub_dimensions]
    filled = np.nan_to_num(first)
    size = len(checklist.sub_dimensions)
    for row, sub in zip(table.itertuples(), checklist.sub_dimensions, strict=True):
        columns = [checklist.question_ids.index(question.question_id) for question in sub.questions]
        assert row.deviation == pytest.approx(filled[:, columns].mean() - second[:, columns].mean())
        assert row.ci_low < row.deviation < row.ci_high
        gain = paired_gain(
            filled[:, columns].mean(axis=1), prompts, second[:, columns].mean(axis=1), prompts, level=simultaneous(size)
        )
        assert (row.ci_low, row.ci_high) == pytest.approx((gain.ci_low, gain.ci_high))


def test_policies_are_compared_with_the_baseline_on_the_same_prompts(checklist: Checklist) -> None:
    rng = np.random.default_rng(6)
    index = pd.DataFrame(
        [
            {"video_id": f"{policy}-{p}-{i}", "prompt_id": f"p{p}", "policy": policy, "status": "ok"}
            for policy in ("mpo", "original", "dpo")
            for p in range(4)
            for i in range(3)
        ]
    )
    yes = {"original": 0.2, "dpo": 0.2, "mpo": 0.9}
    answers = pd.DataFrame(
        [
            {
                "video_id": clip.video_id,
                "question_id": question,
                "p_yes": 0.9 if (answer := rng.random() < yes[clip.policy]) else 0.1,
                "answer": answer,
                "gated": False,
            }
            for clip in index.itertuples()
            for question in checklist.question_ids
        ]
    )
    tables = policy_deviations(answers, index, checklist)
    assert list(tables) == ["dpo", "mpo"]
    mean = answers.merge(index).groupby("policy")["answer"].mean()
    sizes = [len(sub.questions) for sub in checklist.sub_dimensions]
    for policy, table in tables.items():
        assert np.average(table["deviation"], weights=sizes) == pytest.approx(mean[policy] - mean["original"])
    with pytest.raises(InputError, match="no clips of policy 'original'"):
        policy_deviations(answers, index.query("policy == 'mpo'"), checklist)


def test_values_that_are_no_numbers_are_named() -> None:
    with pytest.raises(InputError, match="row 2"):
        clustered_mean([1.0, math.nan], ["p", "q"])
    with pytest.raises(InputError, match="2 values for 1 prompts"):
        clustered_mean([1.0, 2.0], ["p"])
