"""Two processes train the judge that one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from group_judges import KILLED, OPTIONS, JudgeResult, run_all, train, write_model
from two_processes import in_two_processes
from vr_pipeline.errors import InputError
from vr_pipeline.judges.training.config import JudgeTrainingParameters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("group")
    write_model(made)
    return str(made)


@pytest.fixture(scope="module")
def group(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both processes hold after all trainings."""
    return in_two_processes(run_all, folder)


def largest_difference(first: JudgeResult, second: JudgeResult) -> float:
    assert first.weights.keys() == second.weights.keys()
    return max(float(np.abs(first.weights[key] - second.weights[key]).max()) for key in first.weights)


@pytest.mark.parametrize("name", [*OPTIONS, KILLED])
def test_two_processes_train_the_judge_of_one(
    name: str, folder: str, group: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    alone = train(folder, "full" if name == KILLED else name)
    main, other = group[0][name], group[1][name]
    assert largest_difference(main, other) == 0.0
    assert largest_difference(main, alone) < 1e-5
    for process in (main, other):
        pd.testing.assert_frame_equal(process.log, alone.log, rtol=1e-3, atol=1e-5)
        pd.testing.assert_frame_equal(process.report, alone.report, rtol=1e-3, atol=1e-5)
    # One process tells the rows, those of checkpoints twice; started again, those of before once more.
    assert sorted(set(main.told)) == sorted(set(alone.told)) == [1, 2, 3, 4]
    assert other.told == []
    # Weights move by about the learning rate a step: far more than the difference that is allowed.
    assert alone.log["gradient_norm"].min() > 1e-3


def test_a_step_has_its_answers_over_all_processes_together(
    folder: str, group: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    # Four steps of two passes: four clips with two questions each, or more clips with fewer.
    assert train(folder, "drawn").answers == [4] * 8
    assert [process["drawn"].answers for process in group] == [[4] * 4] * 2


def test_it_goes_on_where_it_was_killed(folder: str, group: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert [path.suffix for path in (Path(folder) / "checkpoints").iterdir()] == [".safetensors"]
    for process in group:
        assert process[KILLED].steps == [3, 4]
        np.testing.assert_array_equal(process[KILLED].log, process["full"].log)


def test_passes_that_cannot_be_shared_are_rejected(group: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for process in group:
        assert "2 processes cannot share the 3 passes of a step evenly" in process["rejected"]
        assert "Set batch_size to a multiple of 2 times micro_batch_size" in process["rejected"]
    parameters = JudgeTrainingParameters.model_validate({"tiny": {}, "batch_size": 64, "micro_batch_size": 1})
    for processes in (1, 8, 64):
        parameters.check_processes(processes)
    with pytest.raises(InputError, match=r"judge_training\.micro_batch_size"):
        parameters.check_processes(128)
