"""Labels and grades by criterion: what readers keep, what is masked, and what turning a pair round changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.datasets.preferences import PreferenceDataset
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.clip_names import ClipNames, with_found_clips
from vr_pipeline.preferences.criteria import aggregate_criterion, aggregate_grades, criteria_of, typed
from vr_pipeline.preferences.formats import FILE_COLUMNS, PREFERENCE_COLUMNS, examine_preferences, read_preferences
from vr_pipeline.preferences.labels import aggregate_annotators
from vr_pipeline.schemas import HumanPreferences

PLAIN = "prompt,video_path_a,video_path_b,preference,annotator"
BENCH = "path_A,path_B,prompt,VQ,MQ,TA,Overall"


def written(folder: Path, text: str) -> Path:
    path = folder / "p.csv"
    path.write_text(text, encoding="utf-8")
    return path


def known(values: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in values]


def test_plain_files_keep_labels_and_grades_by_criterion(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"{PLAIN},preference_visual,Preference_motion ,grade_a_visual,grade_b_visual,preferences\n"
        "a cat,1.mp4,2.mp4,a,x,b,,3,4.5,1\na cat,1.mp4,2.mp4,tie,y,,,,2,2\n",
    )
    table = HumanPreferences.validate(read_preferences(path))
    assert criteria_of(table) == ["visual", "motion"]
    assert known(table["preference_visual"]) == ["b", None]
    assert known(table["preference_motion"]) == [None, None]
    assert known(table["grade_a_visual"]) == [3.0, None]
    assert table["grade_b_visual"].tolist() == [4.5, 2.0]
    assert "preferences" not in table
    # Labels are mapped as those of the whole are, and a criterion may be called by any name in the file.
    columns = {"preference_sharpness": "preference_visual"}
    table = read_preferences(path, columns=columns, labels={"a": "b", "b": "a", "tie": "tie"})
    assert known(table["preference_visual"]) == known(table["preference_sharpness"]) == ["a", None]


def test_files_without_criteria_are_read_as_ever(tmp_path: Path) -> None:
    table = read_preferences(written(tmp_path, f"{PLAIN}\na cat,1.mp4,2.mp4,a,x\n"))
    assert list(table.columns) == [*PREFERENCE_COLUMNS, *FILE_COLUMNS]
    assert criteria_of(table) == []
    assert criteria_of(HumanPreferences.validate(table)) == []


def test_videogen_rewardbench_gives_every_criterion(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"{BENCH},MOS_A_VQ,MOS_B_VQ,fps_A\n1.mp4,2.mp4,a cat,A,B,same,B,3.5,2,8\n1.mp4,3.mp4,a cat,,B,same,B,,2,8\n",
    )
    table = HumanPreferences.validate(read_preferences(path, "videogen_rewardbench"))
    assert table["preference"].tolist() == ["b", "b"]
    assert criteria_of(table) == ["VQ", "MQ", "TA"]
    assert known(table["preference_VQ"]) == ["a", None]
    assert known(table["preference_TA"]) == ["tie", "tie"]
    assert known(table["grade_a_VQ"]) == [3.5, None]
    # The rows share a clip: only both paths together identify a row.
    assert table["pair_id"].nunique() == 2
    assert read_preferences(path, "videogen_rewardbench", criterion="TA")["preference"].tolist() == ["tie", "tie"]


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ("1.mp4,2.mp4,a cat,good,B,same,B,,", "VQ", "unknown label 'good'"),
        ("1.mp4,2.mp4,a cat,A,B,same,B,high,", "MOS_A_VQ", "'high' is not a number"),
        ("1.mp4,2.mp4,a cat,A,B,same,B,1,inf", "MOS_B_VQ", "'inf' is not a number"),
        ("1.mp4,2.mp4,a cat,A,B,same,,1,1", "Overall", "the label is empty"),
    ],
)
def test_a_label_or_grade_that_means_nothing_is_named(tmp_path: Path, row: str, field: str, problem: str) -> None:
    path = written(tmp_path, f"{BENCH},MOS_A_VQ,MOS_B_VQ\n{row}\n3.mp4,4.mp4,a cat,A,B,same,B,,\n")
    _, problems = examine_preferences(path, "videogen_rewardbench")
    assert [(one.row, one.field, one.problem) for one in problems] == [(2, field, problem)]
    assert len(read_preferences(path, "videogen_rewardbench")) == 1


def test_a_criterion_that_nobody_judged_is_named() -> None:
    table = make([("1", "x", "y", "a", "b", 1.0, math.nan)])
    with pytest.raises(InputError, match=r"no criterion 'motoin', only preference, motion"):
        aggregate_criterion(table, "motoin")
    with pytest.raises(InputError, match="no criterion 'preference'"):
        aggregate_grades(table, "preference")
    assert aggregate_criterion(table.assign(preference_motion=None), "motion").empty


def test_what_is_saved_is_read_back_and_clips_are_found(tmp_path: Path) -> None:
    path = written(
        tmp_path, f"{PLAIN},preference_m,grade_a_m\na cat,./1.mp4,2.mp4,a,x,b,\na cat,1.mp4,3.mp4,a,x,,0.1\n"
    )
    table = read_preferences(path)
    saved = PreferenceDataset(filepath=str(tmp_path / "out.csv"))
    saved.save(table)
    pd.testing.assert_frame_equal(saved.load(), table)
    found = with_found_clips(table, ClipNames(tmp_path, ["1.mp4", "2.mp4", "3.mp4"], tmp_path))
    pd.testing.assert_frame_equal(found[["preference_m", "grade_a_m"]], table[["preference_m", "grade_a_m"]])


def make(rows: list[tuple[str, str, str, str, str | None, float, float]]) -> pd.DataFrame:
    columns = ["pair_id", "video_id_a", "video_id_b", "preference", "preference_motion"]
    columns += ["grade_a_motion", "grade_b_motion"]
    table = pd.DataFrame(rows, columns=columns).assign(prompt="a cat", annotator="", source="test")
    return typed(table)


LABELS = st.sampled_from(["a", "b", "tie"])
GRADES = st.one_of(st.just(math.nan), st.integers(0, 5).map(float))
PAIRS = st.sampled_from([("1", "x", "y"), ("2", "v", "w"), ("3", "x", "w")])
ROWS = st.lists(st.tuples(PAIRS, LABELS, st.one_of(st.none(), LABELS), GRADES, GRADES), min_size=1, max_size=12)
OTHER = {"a": "b", "b": "a", "tie": "tie", None: None}


@settings(max_examples=15, deadline=None)
@given(rows=ROWS, data=st.data())
def test_turning_a_pair_round_turns_every_criterion(rows: list[Any], data: st.DataObject) -> None:
    turns = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    straight = make([(*pair, *rest) for pair, *rest in rows])
    turned = make(
        [
            (pair[0], pair[2], pair[1], OTHER[label], OTHER[motion], second, first)
            if turn
            else (*pair, label, motion, first, second)
            for (pair, label, motion, first, second), turn in zip(rows, turns, strict=True)
        ]
    )
    for criterion in ("preference", "motion"):
        pd.testing.assert_frame_equal(aggregate_criterion(straight, criterion), aggregate_criterion(turned, criterion))
    pd.testing.assert_frame_equal(aggregate_grades(straight, "motion"), aggregate_grades(turned, "motion"))
    pd.testing.assert_frame_equal(aggregate_criterion(straight, "preference"), aggregate_annotators(straight))


@settings(max_examples=15, deadline=None)
@given(rows=ROWS)
def test_masks_stay_masks_and_count_for_nobody(rows: list[Any]) -> None:
    table = make([(*pair, *rest) for pair, *rest in rows])
    labelled = aggregate_criterion(table, "motion").set_index("pair_id")
    graded = aggregate_grades(table, "motion").set_index("pair_id")
    for pair, own in table.groupby("pair_id"):
        votes = [label for label in own["preference_motion"] if not pd.isna(label)]
        assert (pair in labelled.index) == bool(votes)
        if votes:
            most = [label for label in ("a", "b", "tie") if votes.count(label) == max(map(votes.count, votes))]
            label = most[0] if len(most) == 1 else "tie"
            turned = (own["video_id_a"] > own["video_id_b"]).iloc[0]
            assert labelled.loc[pair, "preference"] == (OTHER[label] if turned else label)
            assert labelled.loc[pair, "annotators"] == len(votes)
        sides = ["grade_b_motion", "grade_a_motion"] if own["video_id_a"].iloc[0] > own["video_id_b"].iloc[0] else []
        means = own[sides or ["grade_a_motion", "grade_b_motion"]].mean().to_numpy()  # a missing grade is left out
        assert (pair in graded.index) == bool(own[["grade_a_motion", "grade_b_motion"]].notna().any(axis=None))
        if pair in graded.index:
            assert graded.loc[pair, ["grade_a", "grade_b"]].astype(float).tolist() == pytest.approx(
                means.tolist(), nan_ok=True
            )
