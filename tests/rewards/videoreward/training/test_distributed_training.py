"""Two processes train the reward that one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tiny_rewards
from group_rewards import KILLED, OPTIONS, RewardResult, run_all, train
from two_processes import in_two_processes

pytestmark = pytest.mark.slow

Results = dict[str, RewardResult]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_rewards.write_model(tmp_path_factory.mktemp("group") / "model")


@pytest.fixture(scope="module")
def group(start: dict[str, Any]) -> tuple[Results, Results]:
    """What both processes hold after all trainings."""
    return in_two_processes(run_all, start, Path(start["path"]).parent / "checkpoints")


def largest_difference(first: RewardResult, second: RewardResult) -> float:
    assert first.weights.keys() == second.weights.keys()
    return max(float(np.abs(first.weights[key] - second.weights[key]).max()) for key in first.weights)


def relative_difference(first: RewardResult, second: RewardResult) -> float:
    """Norm of the difference of all weights, as a share of their norm.

    AdamW makes of a gradient that is nothing but rounding a whole step, so that single weights may differ by one.
    """
    one, other = (np.concatenate([of.weights[key].ravel() for key in sorted(of.weights)]) for of in (first, second))
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


@pytest.mark.parametrize("name", [*OPTIONS, KILLED])
def test_two_processes_train_the_reward_of_one(
    name: str, start: dict[str, Any], group: tuple[Results, Results]
) -> None:
    alone = train(start, "full" if name == KILLED else name)
    main, other = group[0][name], group[1][name]
    assert largest_difference(main, other) == 0.0
    assert relative_difference(main, alone) < 1e-4
    for process in (main, other):
        pd.testing.assert_frame_equal(process.log, alone.log, rtol=1e-3, atol=1e-5)
        pd.testing.assert_frame_equal(process.report, alone.report, rtol=1e-2, atol=1e-3)
    assert sorted(set(main.told)) == sorted(set(alone.told)) == [1, 2, 3, 4]
    assert other.told == []
    # Weights move by about the learning rate a step: far more than the difference that is allowed.
    assert alone.log["gradient_norm"].min() > 1e-3


def test_it_resumes_where_it_was_killed(group: tuple[Results, Results]) -> None:
    for process in group:
        assert process[KILLED].steps == [3, 4]
        pd.testing.assert_frame_equal(process[KILLED].log, process["full"].log)
