"""Annotators, clips and splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.preferences.labels import (
    aggregate_annotators,
    annotator_agreement,
    check_preferences,
    clips_to_judge,
    fleiss_kappa,
    split_by_prompt,
    usable_pairs,
)


def preferences(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["pair_id", "video_id_a", "video_id_b", "preference"])
    return table.assign(prompt="a cat", annotator="", source="test")


def test_votes_of_a_pair_shown_either_way_round_are_counted_together() -> None:
    table = aggregate_annotators(
        preferences(
            ("1", "x", "y", "a"),
            ("1", "y", "x", "b"),
            ("1", "x", "y", "tie"),
            ("2", "z", "w", "a"),
            ("2", "z", "w", "b"),
            ("3", "u", "v", "tie"),
        )
    )
    assert list(table["preference"]) == ["a", "tie", "tie"]
    assert (table["video_id_a"] < table["video_id_b"]).all()
    np.testing.assert_allclose(table[["share_a", "share_b", "share_tie"]].iloc[0], [2 / 3, 0, 1 / 3])
    assert list(table["annotators"]) == [3, 2, 1]
    assert table["prompt_id"][0] == prompt_id("a cat")


def test_a_pair_of_three_clips_is_rejected() -> None:
    with pytest.raises(InputError, match="pair '1' has more than two clips"):
        aggregate_annotators(preferences(("1", "x", "y", "a"), ("1", "x", "z", "a")))


def test_kappa_equals_the_example_in_the_literature() -> None:
    # Fleiss' example: 10 subjects, 14 raters, 5 categories; kappa 0.210.
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    result = fleiss_kappa(np.array(counts))
    assert result["fleiss_kappa"] == pytest.approx(0.210, abs=5e-4)
    assert result["raw_agreement"] == pytest.approx(0.378, abs=5e-4)


def test_agreement_of_annotators_needs_two_of_them() -> None:
    single = annotator_agreement(preferences(("1", "x", "y", "a")))
    assert single == {
        "pairs": 1,
        "annotations": 1,
        "pairs_with_several": 0,
        "raw_agreement": None,
        "fleiss_kappa": None,
    }
    same = annotator_agreement(preferences(("1", "x", "y", "a"), ("1", "y", "x", "b")))
    assert same["raw_agreement"] == 1.0
    assert same["fleiss_kappa"] is None


def index_of(**status: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "video_id": list(status),
            "status": ["ok" if error == "" else "failed" for error in status.values()],
            "error": list(status.values()),
        }
    )


def test_pairs_of_unreadable_clips_are_set_aside_with_the_reason() -> None:
    pairs = aggregate_annotators(preferences(("1", "x", "y", "a"), ("2", "x", "z", "b")))
    good, bad = usable_pairs(pairs, index_of(x="", y="", z="no frames"))
    assert list(good["pair_id"]) == ["1"]
    assert bad.to_dict(orient="records") == [
        {
            "pair_id": "2",
            "prompt_id": prompt_id("a cat"),
            "video_id_a": "x",
            "video_id_b": "z",
            "reason": "z: no frames",
        }
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no preferences"),
        (
            [("1", "x", "z", "a"), ("2", "x", "y", "b")],
            r"row 3, field 'video_id_b': video 'y' is not one of the 2 clips .*Add the clip",
        ),
        ([("1", "x", "x", "a")], "row 2, field 'video_id_b': video 'x' is compared with itself"),
    ],
)
def test_preferences_that_cannot_be_meant_stop_with_their_row(rows: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_preferences(preferences(*rows), index_of(x="", z=""))


@given(n=st.integers(2, 40), share=st.floats(0.01, 0.99), more=st.floats(0.0, 0.5), seed=st.integers(0, 5))
def test_split_has_two_sides_and_keeps_prompts_whole(n: int, share: float, more: float, seed: int) -> None:
    prompts = pd.Series([f"p{i % n}" for i in range(3 * n)])
    split = split_by_prompt(prompts, share, seed)
    assert set(split) == {"fit", "held_out"}
    assert (split.groupby(prompts).nunique() == 1).all()
    # A larger share adds prompts and takes none back, also where a side would be empty.
    assert (split_by_prompt(prompts, min(share + more, 1.0), seed)[split == "held_out"] == "held_out").all()


def test_split_of_a_prompt_stays_when_others_come() -> None:
    few, many = (pd.Series([f"p{i}" for i in range(n)]) for n in (50, 500))
    assert list(split_by_prompt(few, 0.3, 0)) == list(split_by_prompt(many, 0.3, 0))[:50]
    assert (split_by_prompt(many, 0.3, 0) == "held_out").mean() == pytest.approx(0.3, abs=0.06)
    with pytest.raises(InputError, match="none can be held out"):
        split_by_prompt(pd.Series(["p", "p"]), 0.3, 0)


def test_clips_named_by_preferences_are_listed_once() -> None:
    table = preferences(("1", "x", "y", "a"), ("2", "y", "z", "b"))
    clips = clips_to_judge(table.assign(video_path_a=["x.mp4", "y.mp4"], video_path_b=["y.mp4", "z.mp4"]))
    assert list(clips["video_id"]) == ["x", "y", "z"]
    assert list(clips["file"]) == ["x.mp4", "y.mp4", "z.mp4"]
    assert list(clips["sample_index"]) == [0, 1, 2]
    assert set(clips["generator"]) == {"given"}
    assert set(clips["seed"]) == {0}
    # Samples are counted within a prompt; the generator is named where it is known.
    table = table.assign(prompt=["a dog", "a cat"], generator_a=["one", ""], generator_b=["two", "three"])
    clips = clips_to_judge(table.assign(video_id_a=["x", "w"], video_id_b=["y", "z"]))
    assert clips[["video_id", "sample_index", "generator", "file"]].to_numpy().tolist() == [
        ["w", 0, "given", ""],
        ["z", 1, "three", ""],
        ["x", 0, "one", ""],
        ["y", 1, "two", ""],
    ]


def test_kappa_is_left_out_where_chance_cannot_be_told() -> None:
    assert fleiss_kappa(np.array([[2, 0, 0]] * 5))["fleiss_kappa"] is None  # one label only
    assert fleiss_kappa(np.array([[1, 1, 0]]))["fleiss_kappa"] is None  # one item
    # A pair with one vote says nothing of agreement.
    votes = np.array([[2, 0, 0], [0, 2, 0], [1, 1, 0]])
    assert fleiss_kappa(np.r_[votes, [[1, 0, 0]]]) == fleiss_kappa(votes)
    assert fleiss_kappa(np.array([[1, 0, 0]]))["raw_agreement"] is None
