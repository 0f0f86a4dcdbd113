"""The grid of a probe, and what fits into the time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vr_pipeline.training.probe.grid import FEWEST_STEPS, Costs, Grid, around, fitted

WIDE = Grid((1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (3.0, 10.0, 30.0, 100.0, 300.0), 32)


def test_values_around_a_setting_are_half_a_power_of_ten_apart_and_hold_it() -> None:
    assert around(5e-6, 3) == (1.6e-6, 5e-6, 1.6e-5)
    values = around(0.001234)
    assert values[2] == 0.001234
    assert len(values) == 5
    assert all(3 < high / low < 3.4 for low, high in pairwise(values))


def test_a_grid_that_fits_is_left_alone() -> None:
    assert fitted(WIDE, Costs(step=0.1, judgement=1.0), 3600) == WIDE


@pytest.mark.parametrize("seconds", [5.0, 60.0, 300.0, 900.0, 2000.0])
@pytest.mark.parametrize("costs", [Costs(1.0, 0.0), Costs(1.0, 40.0), Costs(0.01, 10.0)])
def test_what_is_left_fits_into_the_time_and_steps_go_before_settings(costs: Costs, seconds: float) -> None:
    left = fitted(WIDE, costs, seconds)
    assert costs.seconds(left) <= seconds or len(left.cells) == 1
    assert left.steps >= FEWEST_STEPS
    if len(left.cells) < len(WIDE.cells):
        assert left.steps == FEWEST_STEPS
    assert set(left.learning_rates) <= set(WIDE.learning_rates)
    assert abs(len(left.learning_rates) - len(left.betas)) <= 1


def test_the_middle_of_both_axes_stays() -> None:
    left = fitted(WIDE, Costs(1.0, 0.0), 4 * FEWEST_STEPS)
    assert 1e-3 in left.learning_rates
    assert 30.0 in left.betas
