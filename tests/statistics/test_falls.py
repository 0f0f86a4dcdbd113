"""The test of falling rewards against brute force, and its rate of false alarms."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from vr_pipeline.statistics.falls import clearest_fall, smallest_p_value


def test_equals_the_permutation_test_of_scipy_for_one_reward():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(2, 8)) - [[0.0], [0.6]]
    found = clearest_fall({"a": rewards})
    reference = stats.permutation_test(
        (rewards[1] - rewards[0],),
        lambda values: stats.ttest_1samp(values, 0).statistic,
        permutation_type="samples",
        alternative="less",
        n_resamples=np.inf,
    )
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.change == pytest.approx((rewards[1] - rewards[0]).mean())


def test_equals_brute_force_over_signs_for_several_rewards_and_checkpoints():
    rng = np.random.default_rng(1)
    rewards = {name: rng.normal(size=(4, 6)) - 0.5 * np.arange(4)[:, None] * (name == "b") for name in "abc"}
    found = clearest_fall(rewards)

    def statistics(signs):
        return {
            (name, since): -stats.ttest_1samp(signs * (table[-1] - table[since]), 0).statistic
            for name, table in rewards.items()
            for since in range(3)
        }

    observed = statistics(np.ones(6))
    name, since = max(observed, key=observed.get)
    counted = [max(statistics(np.array(signs)).values()) for signs in product([1, -1], repeat=6)]
    assert (found.name, found.since) == (name, since)
    assert found.p_value == pytest.approx(np.mean(np.array(counted) >= observed[name, since] - 1e-9))


@pytest.mark.parametrize(("prompts", "trials"), [(8, 400), (13, 60)])
def test_false_alarms_are_as_rare_as_the_level_says(prompts, trials):
    """Rewards that wander together without falling; binomial bound at 1e-4."""
    rng = np.random.default_rng(2)
    alarms, level = 0, 0.05
    for trial in range(trials):
        shared = rng.standard_t(4, size=(6, prompts))
        rewards = {str(i): shared + rng.standard_t(4, size=(6, prompts)) for i in range(5)}
        found = clearest_fall(rewards, seed=trial)
        alarms += found is not None and found.p_value <= level
    assert alarms <= stats.binom.ppf(1 - 1e-4, trials, level)


def test_only_checkpoints_below_the_last_by_the_trained_reward_are_compared():
    rng = np.random.default_rng(3)
    fallen = np.array([1.0, 3.0, 0.0])[:, None] + rng.normal(size=(3, 9)) * 0.1
    assert clearest_fall({"a": fallen}).since == 1
    rises = np.array([0.0, 5.0, 2.0])[:, None] + np.zeros((3, 9))
    assert clearest_fall({"a": fallen}, rises).since == 0
    assert clearest_fall({"a": fallen}, -np.arange(3.0)[:, None] + np.zeros((3, 9))) is None


def test_a_rise_of_the_training_has_to_be_clear_where_that_is_asked():
    rng = np.random.default_rng(6)
    fallen = np.array([3.0, 2.0, 0.0])[:, None] + rng.normal(size=(3, 9)) * 0.1
    trained = np.array([0.0, 0.9, 1.0])[:, None] + rng.normal(size=(3, 9)) * 0.5
    p_values = [stats.ttest_1samp(trained[-1] - trained[i], 0, alternative="greater").pvalue for i in range(2)]
    assert p_values[0] < 0.01 < p_values[1] < 1
    assert clearest_fall({"a": fallen}, trained, rise=0.01) == clearest_fall({"a": fallen[[0, 2]]})
    assert clearest_fall({"a": fallen}, trained, rise=p_values[0] / 2) is None
    assert clearest_fall({"a": fallen}, np.arange(3.0)[:, None] + np.zeros((3, 9)), rise=1e-9) is not None


def test_a_reward_is_not_compared_where_its_counterpart_fell_too():
    rng = np.random.default_rng(5)
    steep, mild = (np.array(means)[:, None] + rng.normal(size=(3, 9)) * 0.1 for means in ([5.0, 5.0, 0.0], [2.0] * 3))
    mild[-1] -= 1.0
    rewards = {"a": steep, "b": mild}
    assert clearest_fall(rewards).name == "a"
    fallen = clearest_fall(rewards, seen={"a": [1.0, 1.0, 0.5]})
    assert fallen == clearest_fall({"b": mild})
    assert clearest_fall(rewards, seen={"a": [0.5, 1.0, 0.5]}).since == 0
    assert clearest_fall(rewards, seen={"a": [1.0, 1.0, 0.5], "b": [3.0, 3.0, 0.0]}) is None


def test_what_cannot_fall_is_no_fall():
    assert clearest_fall({}) is None
    assert clearest_fall({"a": np.ones((1, 9))}) is None
    assert clearest_fall({"a": np.arange(3.0)[:, None] + np.zeros((3, 9))}) is None
    assert clearest_fall({"a": np.ones((3, 9))}) is None
    assert clearest_fall({"a": np.arange(3.0)[::-1, None]}) is None


@pytest.mark.parametrize("prompts", [3, 10, 30])
def test_the_clearest_possible_fall_has_the_smallest_p_value(prompts):
    noise = np.random.default_rng(4).normal(size=(2, prompts)) * 0.01
    found = clearest_fall({"a": np.array([[1.0], [0.0]]) + noise})
    assert found.p_value == pytest.approx(smallest_p_value(prompts))
