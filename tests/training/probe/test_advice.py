"""What a probe advises, and why."""

from __future__ import annotations

from dataclasses import replace

from vr_pipeline.training.config import SafeguardParameters
from vr_pipeline.training.probe.advice import Health, advise
from vr_pipeline.training.probe.measure import Cell

GOOD = Cell(1e-3, 30.0, gain=0.9, gain_low=0.6, gain_high=1.2, accuracy=0.8, winner_rise=0.1, norm_ratio=1.1, loss=0.4)
BROKEN = replace(GOOD, learning_rate=3e-2, gain=1.5, winner_rise=5.3)


def test_a_setting_that_breaks_is_not_advised_whatever_it_gains() -> None:
    advice = advise([GOOD, BROKEN], Health(), 32)
    assert (advice.learning_rate, advice.beta) == (1e-3, 30.0)
    assert "30 times as high" in advice.reason
    assert "530%" in advice.reason


def test_of_settings_that_may_be_equal_the_one_that_changes_winners_least_is_advised() -> None:
    gentle = replace(GOOD, learning_rate=3e-4, gain=0.85, winner_rise=0.02)
    slow = replace(GOOD, learning_rate=1e-4, gain=0.2, winner_rise=0.0)
    assert advise([GOOD, gentle, slow], Health(), 32).learning_rate == 3e-4


def test_where_all_break_or_none_gains_there_is_no_advice() -> None:
    stopped = Cell(1e-3, 30.0, stopped="Training collapsed at step 7.")
    none_healthy = advise([BROKEN, stopped], Health(), 32)
    assert none_healthy.learning_rate is None
    assert "Training collapsed at step 7." in none_healthy.reason
    assert advise([replace(GOOD, gain=-0.1)], Health(), 32).learning_rate is None


def test_without_a_reward_accuracy_on_held_out_pairs_decides() -> None:
    better = replace(GOOD, beta=300.0, gain=None, gain_low=None, gain_high=None, accuracy=0.9)
    worse = replace(better, beta=10.0, accuracy=0.6)
    advice = advise([worse, better], Health(), 32)
    assert advice.beta == 300.0
    assert "accuracy" in advice.reason


def test_limits_are_those_of_the_automatic_stop_where_it_has_some() -> None:
    guard = SafeguardParameters(max_winner_change=3.0, max_norm_ratio=4.0)
    assert Health.of(guard) == Health(winner_rise=1.5, norm_ratio=2.0)
    assert Health.of(SafeguardParameters(max_winner_change=None, max_norm_ratio=None)) == Health()


def test_health_has_limits_on_both_sides_of_the_norm() -> None:
    limits = Health()
    assert limits.trouble(GOOD) == []
    assert limits.trouble(replace(GOOD, norm_ratio=0.2))
    assert limits.trouble(replace(GOOD, norm_ratio=2.5))
    assert limits.trouble(replace(GOOD, gain=-0.5, gain_low=-0.9, gain_high=-0.1))
