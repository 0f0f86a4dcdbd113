"""Tables of what became of prompts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.identifiers import prompt_id
from vr_pipeline.prompts.config import CleaningParameters
from vr_pipeline.prompts.decisions import (
    DECISION_COLUMNS,
    Dropped,
    apply_scan,
    clean_table,
    drop_rows,
    no_decisions,
    scan_per_image,
)
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


WORDS = st.lists(st.tuples(st.sampled_from(["x y", "x z", "w"]), st.sampled_from("abc")), max_size=12)


def same_words(texts: list[str]) -> GreedyScan:
    """Drop what equals something before it."""
    nearest = np.array([texts.index(text) if texts.index(text) < row else -1 for row, text in enumerate(texts)])
    return GreedyScan(np.flatnonzero(nearest < 0), nearest.astype(np.int64), np.where(nearest < 0, np.nan, 1.0))


@given(rows=WORDS)
def test_prompts_are_compared_with_those_of_the_same_image_alone(rows: list[tuple[str, str]]) -> None:
    table = pd.DataFrame(rows, columns=["prompt", "image"], dtype="str")
    images = table["image"] + ":path"
    scan = scan_per_image(table.assign(image=images), table["prompt"].tolist(), same_words)
    joint = same_words([" ".join(row) for row in rows])
    np.testing.assert_array_equal(scan.nearest, joint.nearest)
    np.testing.assert_array_equal(scan.kept, joint.kept)
    np.testing.assert_array_equal(scan.similarity, joint.similarity)
    # An array is divided as a list is, and without images everything is compared.
    codes = table["prompt"].map({"x y": 0, "x z": 1, "w": 2}).to_numpy(dtype=np.int64)
    by_code = scan_per_image(table.assign(image=images), codes, lambda part: same_words([str(one) for one in part]))
    np.testing.assert_array_equal(by_code.nearest, joint.nearest)
    alone = scan_per_image(table[["prompt"]], table["prompt"].tolist(), same_words)
    np.testing.assert_array_equal(alone.nearest, same_words(table["prompt"].tolist()).nearest)


def test_the_same_words_about_another_image_are_another_prompt() -> None:
    texts = ["a red ball rolls over wet grass", "a red ball rolls over wet grass", "A red ball rolls over wet  grass"]
    raw = pd.DataFrame({"prompt": texts, "image": ["1:a.png", "2:b.png", "1:copy of a.png"]}).assign(
        row=[2, 3, 4], source="file", source_id="", unsafe_probability=np.nan, problem=""
    )
    clean, gone = clean_table(raw, CleaningParameters())
    assert clean["image"].tolist() == ["1:a.png", "2:b.png"]
    assert clean["prompt_id"].tolist() == [prompt_id(texts[0], image) for image in "12"]
    assert prompt_id(texts[0]) not in set(clean["prompt_id"])
    assert gone["rule"].tolist() == ["drop_exact_duplicates"]
    alone, _ = clean_table(raw.drop(columns="image"), CleaningParameters())
    assert alone["prompt_id"].tolist() == [prompt_id(texts[0])]
    assert "image" not in alone
