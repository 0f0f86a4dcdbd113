"""Two processes train the reward that one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tiny_unified_training as tiny
from group_unified import OPTIONS, train_all
from two_processes import in_two_processes

pytestmark = pytest.mark.slow


def test_two_processes_train_the_reward_of_one(tmp_path: Path) -> None:
    start: dict[str, Any] = tiny.write_model(tmp_path / "model")
    main, other = in_two_processes(train_all, start)
    alone = train_all(start)
    for name in OPTIONS:
        keys = sorted(alone[name]["weights"])
        for key in keys:
            assert np.array_equal(main[name]["weights"][key], other[name]["weights"][key])
        # AdamW makes of a gradient that is nothing but rounding a whole step: single weights may differ by one.
        one, two = (np.concatenate([of[name]["weights"][key].ravel() for key in keys]) for of in (alone, main))
        assert np.linalg.norm(one - two) < 1e-4 * np.linalg.norm(one)
        pd.testing.assert_frame_equal(main[name]["log"], alone[name]["log"], rtol=1e-3, atol=1e-5)
        pd.testing.assert_frame_equal(main[name]["report"], alone[name]["report"], rtol=1e-2, atol=1e-3)
