"""The test of rises that another reward does not explain: its slope, its p-values, and its rate of false alarms."""

import numpy as np
import pytest
from scipy import stats

from vr_pipeline.statistics.excess import clearest_excess, moments

SLOPE = 1.5


def clips_of_original(rng: np.random.Generator, prompts: int, clips: int) -> np.ndarray:
    """Return moments of rewards that agree with the slope 1.5, apart from noise, [prompts, 3]."""
    names = [f"{number:02d}" for number in range(prompts) for _ in range(clips)]
    other = rng.normal(size=len(names)) + np.repeat(rng.normal(size=prompts), clips)
    trained = SLOPE * other + rng.normal(size=len(names))
    return np.array(list(moments(trained, other, names).values()))


def explained(rng: np.random.Generator, prompts: int, rises: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return rewards of checkpoints, the training's and the other's, that rise together, by checkpoint and prompt."""
    other = np.array(rises)[:, None] + rng.normal(size=(len(rises), prompts)) * 0.3
    return SLOPE * other + rng.normal(size=other.shape) * 0.3, other


def exact(prompts: int) -> np.ndarray:
    """Return moments whose slope is 1.5 in every prompt, so that no prompt changes it."""
    return np.tile([SLOPE, 1.0, 2 * SLOPE**2], (prompts, 1))


@pytest.mark.parametrize("clips", [1, 5])
def test_the_ratio_of_the_moments_is_the_slope_between_clips(clips: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"p{number}" for number in range(6) for _ in range(clips)]
    other = rng.normal(size=len(names)) + np.repeat(rng.normal(size=6) * 5, clips)
    trained = SLOPE * other - np.repeat(rng.normal(size=6) * 9, clips) * (clips > 1) + rng.normal(size=len(names)) * 0.1
    found = moments(trained, other, names)
    dummies = np.array([[name == which for which in sorted(set(names))] for name in names], dtype=float)
    controls = dummies if clips > 1 else np.ones((len(names), 1))
    reference = np.linalg.lstsq(np.column_stack([other, controls]), trained, rcond=None)[0][0]
    sums = np.array(list(found.values())).sum(axis=0)
    assert sums[0] / sums[1] == pytest.approx(reference)
    rest = [table - controls @ np.linalg.lstsq(controls, table, rcond=None)[0] for table in (other, trained)]
    assert sums[0] / np.sqrt(sums[1] * sums[2]) == pytest.approx(np.corrcoef(*rest)[0, 1])
    order = rng.permutation(len(names))
    again = moments(trained[order], other[order], [names[at] for at in order])
    assert {name: pytest.approx(pair) for name, pair in found.items()} == again


def test_equals_the_permutation_test_of_scipy_if_the_slope_is_certain() -> None:
    rng = np.random.default_rng(1)
    trained, other = explained(rng, 8, [0.0, 1.0])
    trained[1] += 0.3
    found = clearest_excess({"a": other}, trained, {"a": exact(8)})
    assert found is not None
    rise, change = trained[1] - trained[0], other[1] - other[0]
    reference = stats.permutation_test(
        (rise - SLOPE * change,),
        lambda values: stats.ttest_1samp(values, 0).statistic,
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.rise, found.change) == (pytest.approx(rise.mean()), pytest.approx(change.mean()))
    assert found.expected == pytest.approx(SLOPE * change.mean())


def test_the_reward_and_the_checkpoint_of_the_clearest_excess_are_named() -> None:
    rng = np.random.default_rng(2)
    trained, follows = explained(rng, 12, [0.0, 1.0, 2.0, 3.0])
    trained[0] += 1.0
    stays = follows.copy()
    stays[2:] = follows[1] + rng.normal(size=(2, 12)) * 0.1
    rewards = {"follows": follows, "stays": stays}
    found = clearest_excess(rewards, trained, {name: exact(12) for name in rewards})
    assert found is not None
    assert (found.name, found.since) == ("stays", 1)
    assert found.p_value < 0.01


@pytest.mark.parametrize(("prompts", "clips", "trials"), [(8, 3, 300), (16, 8, 60)])
def test_false_alarms_are_as_rare_as_the_level_says_if_the_slope_is_estimated(
    prompts: int, clips: int, trials: int
) -> None:
    """Rewards that rise together by many deviations, so that the error of the slope matters; binomial bound at 1e-4."""
    level, alarms = 0.1, 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        trained, other = explained(rng, prompts, [0.0, 1.0, 2.0, 3.0])
        found = clearest_excess({"a": other}, trained, {"a": clips_of_original(rng, prompts, clips)}, seed=trial)
        alarms += found is not None and found.p_value <= level
    assert alarms <= stats.binom.ppf(1 - 1e-4, trials, level)


def test_a_reward_that_rises_alone_is_found_at_any_scale() -> None:
    for trial in range(20):
        rng = np.random.default_rng(trial)
        trained, other = explained(rng, 16, [0.0, 1.0, 1.0])
        trained[2] += 1.0
        original = clips_of_original(rng, 16, 8)
        found = clearest_excess({"a": other}, trained, {"a": original})
        assert found is not None
        assert found.p_value < 0.01
        scaled = clearest_excess({"a": 7.0 * other}, 3.0 * trained, {"a": original * [21.0, 49.0, 9.0]})
        assert scaled is not None
        assert (scaled.since, scaled.p_value) == (found.since, pytest.approx(found.p_value))
        assert scaled.expected == pytest.approx(3.0 * found.expected)


def test_only_clear_rises_and_rewards_that_agree_are_compared() -> None:
    rng = np.random.default_rng(3)
    other = np.array([1.0, 0.0])[:, None] + rng.normal(size=(2, 9)) * 0.1
    trained = np.array([0.0, 0.2])[:, None] + rng.normal(size=(2, 9)) * 0.5
    p_value = stats.ttest_1samp(trained[1] - trained[0], 0, alternative="greater").pvalue
    assert 0.01 < p_value < 0.5
    assert clearest_excess({"a": other}, trained, {"a": exact(9)}) is not None
    assert clearest_excess({"a": other}, trained, {"a": exact(9)}, rise=p_value / 2) is None
    assert clearest_excess({"a": other}, -trained, {"a": exact(9)}) is None
    assert clearest_excess({"a": other}, trained, {}) is None
    assert clearest_excess({"a": other}, trained, {"a": exact(9) * [-1.0, 1.0, 1.0]}) is None
    assert clearest_excess({"a": other}, trained, {"a": np.zeros((9, 3))}) is None
    # The correlation is 1 / sqrt(2).
    assert clearest_excess({"a": other}, trained, {"a": exact(9)}, agreement=0.70) is not None
    assert clearest_excess({"a": other}, trained, {"a": exact(9)}, agreement=0.71) is None
    assert clearest_excess({"a": other[:1]}, trained[:1], {"a": exact(9)}) is None


def test_the_smallest_excess_is_a_part_of_the_whole_rise() -> None:
    rng = np.random.default_rng(4)
    trained, other = explained(rng, 12, [0.0, 2.0, 2.0])
    trained[2] += 0.6
    rewards, original = {"a": other}, {"a": exact(12)}
    every = clearest_excess(rewards, trained, original)
    assert every is not None
    part = (every.rise - every.expected) / (trained[2] - trained[0]).mean()
    assert 0.05 < part < 0.3
    assert clearest_excess(rewards, trained, original, smallest=part * 0.99) == every
    other_one = clearest_excess(rewards, trained, original, smallest=part * 1.01)
    assert other_one is None or (other_one.since != every.since and other_one.p_value >= every.p_value)
    assert clearest_excess(rewards, trained, original, smallest=1.0) is None
