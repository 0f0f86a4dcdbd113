"""Tables of what became of prompts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vr_pipeline.prompts.decisions import DECISION_COLUMNS, Dropped, apply_scan, drop_rows, no_decisions
from vr_pipeline.prompts.greedy_scan import GreedyScan
from vr_pipeline.schemas import PromptFilterDecisions


def prompts() -> pd.DataFrame:
    names = ["a cat", "a cat sits", "a dog"]
    return pd.DataFrame({"prompt_id": ["p0", "p1", "p2"], "prompt": names, "original_prompt": names}).assign(
        source="file", row=[2, 3, 4], changed_by=""
    )


def test_rows_that_go_name_what_they_resemble_and_those_without_a_like_do_not() -> None:
    stay, gone = drop_rows(
        prompts(), [Dropped(1, "too near", 0, 0.8), Dropped(2, "not wanted")], step="a step", rule="a rule"
    )
    assert stay["prompt_id"].tolist() == ["p0"]
    PromptFilterDecisions.validate(gone)
    assert gone["prompt_id"].tolist() == ["p1", "p2"]
    assert gone[["step", "rule", "kept"]].drop_duplicates().to_numpy().tolist() == [["a step", "a rule", False]]
    assert gone["reason"].tolist() == ["too near", "not wanted"]
    assert gone["row"].tolist() == [3, 4]
    assert gone.loc[0, ["nearest_prompt_id", "nearest_prompt", "similarity"]].tolist() == ["p0", "a cat", 0.8]
    assert gone.loc[1, ["nearest_prompt_id", "nearest_prompt", "similarity"]].isna().all()


def test_a_scan_divides_a_table() -> None:
    scan = GreedyScan(np.array([0, 2]), np.array([-1, 0, -1]), np.array([np.nan, 0.75, np.nan]))
    stay, gone = apply_scan(prompts(), scan, step="rouge", rule="near", reason="F1 of {similarity:.2f}")
    assert stay["prompt"].tolist() == ["a cat", "a dog"]
    assert stay.index.tolist() == [0, 1]
    assert gone[["prompt", "nearest_prompt", "reason", "similarity"]].to_numpy().tolist() == [
        ["a cat sits", "a cat", "F1 of 0.75", 0.75]
    ]


def test_no_decisions_have_the_columns_and_kinds_of_some() -> None:
    _, gone = drop_rows(prompts(), [Dropped(1, "too near", 0, 0.8)], step="a step", rule="a rule")
    pd.testing.assert_series_equal(no_decisions().dtypes, gone.dtypes)
    assert tuple(no_decisions().columns) == DECISION_COLUMNS
