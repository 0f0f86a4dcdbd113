"""Items from comparisons and ratings: what they say, which are left out, and the order in which they are shown."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_unified_training as tiny
from tiny_unifiedreward import toy_template
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedItemSources
from vr_pipeline.rewards.unifiedreward.training.drawing import Drawing
from vr_pipeline.rewards.unifiedreward.training.items import (
    best_and_worst,
    items_from_preferences,
    items_from_ratings,
    items_from_sources,
    mixed,
)
from vr_pipeline.rewards.unifiedreward.training.labelled import label_items
from vr_pipeline.schemas import UnifiedItems

START = {"family": "qwen2_vl", "path": "nowhere", "device": "cpu"}


def test_pairs_are_what_most_annotators_say_whichever_way_they_were_shown() -> None:
    row = {"pair_id": "p", "prompt": "red ball", "source": "made", "preference_motion": None}
    votes = [("x", "y", "a"), ("y", "x", "b"), ("x", "y", "b"), ("x", "y", "tie")]
    table = pd.DataFrame(
        [
            {**row, "video_id_a": first, "video_id_b": second, "preference": said, "annotator": str(at)}
            for at, (first, second, said) in enumerate(votes)
        ]
    )
    items = UnifiedItems.validate(items_from_preferences(table))
    assert items[["video_id_a", "video_id_b", "answer", "form"]].to_numpy().tolist() == [["x", "y", "first", "pair"]]
    # As many votes for either: a tie. A masked criterion says nothing.
    assert items_from_preferences(table[1:3])["answer"].tolist() == ["tie"]
    table["preference_motion"] = [None, "a", None, None]
    assert items_from_preferences(table, criterion="motion")["answer"].tolist() == ["second"]
    with pytest.raises(InputError, match="no criterion 'colour'"):
        items_from_preferences(table, criterion="colour")


def test_ratings_become_points_and_the_best_against_the_worst() -> None:
    grades = {"u": (5, 4), "v": (1, 2), "w": (3, 4), "half": (5, None)}
    rows = [
        {"prompt": "red ball", "video_id": clip, "dimension": name, "grade": grade, "source": "rated"}
        for clip, given_grades in grades.items()
        for name, grade in zip(("look", "moves"), given_grades, strict=True)
        if grade is not None
    ]
    # A second annotator of one grade: the mean counts.
    rows.append({**rows[0], "grade": 4})
    rows += [{**rows[0], "prompt": "ball", "video_id": clip, "grade": 3} for clip in "uv"]
    items = UnifiedItems.validate(items_from_ratings(pd.DataFrame(rows)))
    points = items[items["form"] == "point"].set_index(["prompt", "video_id_a", "dimension"])["answer"]
    assert points["red ball", "u", "look"] == "4.5"
    assert points["red ball", "v", "moves"] == "2"
    assert len(points) == 9
    # Of the second prompt all are alike; the clip that lacks a dimension is not compared.
    (pair,) = items[items["form"] == "pair"].to_dict("records")
    assert pair["prompt"] == "red ball"
    better = pair["video_id_a"] if pair["answer"] == "first" else pair["video_id_b"]
    assert {pair["video_id_a"], pair["video_id_b"]} == {"u", "v"}
    assert better == "u"
    assert len(best_and_worst(items)) == 1
    # Of texts about a clip, those are compared.
    texts = pd.DataFrame(
        [
            {"prompt": "what ?", "video_id": "u", "response": text, "dimension": "", "grade": grade}
            for text, grade in (("good", 4), ("bad", 1), ("so so", 2))
        ]
    )
    (pair,) = best_and_worst(items_from_ratings(texts, task="video_understanding", source="s")).to_dict("records")
    assert pair["video_id_b"] == ""
    assert pair["response_a" if pair["answer"] == "first" else "response_b"] == "good"


@pytest.mark.parametrize("votes", [[1], [0], [1, 0], [1, 1], [0, 1, 0, 1], [0, 0, 1, 0]])
def test_an_element_is_there_if_two_annotators_agree(votes: list[int]) -> None:
    rows = [{"prompt": "ball", "video_id": "u", "dimension": "element ball", "grade": vote} for vote in votes]
    (item,) = items_from_ratings(pd.DataFrame(rows), source="s", elements=True).to_dict("records")
    expected = sum(votes) >= 2 if len(votes) > 1 else votes == [1]
    assert item["answer"] == str(int(expected))


def test_sources_come_together_and_grades_of_comparisons_are_points() -> None:
    table = tiny.preferences().assign(grade_a_look=3.0, grade_b_look=5.0)
    labels = items_from_ratings(tiny.ratings(), source="labels", pairs=False)
    items = items_from_sources(table, labels, UnifiedItemSources(pairs_of_points=False))
    assert Counter(items["source"]) == {"made": 36 + 48, "labels": 96}
    assert not items["item_id"].duplicated().any()
    assert len(items_from_sources(table, None, UnifiedItemSources(grades=False))) == 36
    rated = items_from_sources(None, tiny.ratings(), UnifiedItemSources())
    assert Counter(rated["form"]) == {"point": 96, "pair": 12}
    assert mixed([items, items]).equals(items)
    with pytest.raises(InputError, match="there are no labels"):
        items_from_sources(None, None, UnifiedItemSources())
    with pytest.raises(InputError, match=r"row 3, field 'grade': the grade 'x' is not a finite number"):
        items_from_ratings(tiny.ratings().astype(object).assign(grade=["1", "x", *["2"] * 94]))
    with pytest.raises(InputError, match="no column 'answer'"):
        mixed([items.drop(columns="answer")])


def labelled(items: pd.DataFrame, index: pd.DataFrame, **changes: Any) -> Any:
    settings = tiny.parameters(START, **changes)
    return label_items(items, index, toy_template(), settings)


def test_items_find_their_line_their_answer_and_one_side() -> None:
    items, index = tiny.tables()
    found = labelled(items.sample(frac=1, random_state=0), index)
    table = found.table
    assert table["item_id"].is_monotonic_increasing
    assert not len(found.left_out)
    point = table[(table["dimension"] == "moves") & (table["video_id_a"] == "red ball/2")].iloc[0]
    # Grade 3 of 1 to 4, behind the line 'look' with grade 7 of the same clip.
    assert (point["line"], point["right"], point["earlier"]) == (1, 2, ("7",))
    assert (table.loc[table["form"] == "pair", "line"] == -1).all()
    # No prompt is on two sides, in whichever task its clips are.
    of_clip = table.assign(made_for=table["video_id_a"].str.partition("/")[0])
    assert (of_clip.groupby("made_for")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "validation", "test"}
    counts = found.counts()
    assert sum(side["items"] for side in counts.values()) == len(items)
    assert counts["test"]["clips_trained_on"] == 0


def test_what_the_template_does_not_ask_is_left_out_with_its_reason() -> None:
    items, index = tiny.tables()
    understanding = items["task"] == "video_understanding"
    items.loc[understanding & (items["form"] == "pair"), "answer"] = "tie"
    items.loc[(items["dimension"] == "look") & (items["video_id_a"] == "red ball/0"), "answer"] = "99"
    items.loc[(items["dimension"] == "look") & (items["video_id_a"] == "red ring/0"), "dimension"] = "taste"
    index.loc[index["video_id"] == "blue ball/3", ["status", "error"]] = ["failed", "it ends"]
    found = labelled(items, index)
    reasons = Counter(found.left_out["reason"])
    assert reasons["the template 'toy' has no tie for video_understanding"] == 11
    assert reasons["99.0 is outside the scale of 'look', 1 to 12"] == 1
    assert reasons["the template 'toy' has no line for 'taste' (video_generation: look, moves)"] == 1
    # Both clips lack the first line of their answer now.
    assert reasons["the earlier line 'look' of the same answer has no grade"] == 2
    assert reasons["blue ball/3: it ends"] == 2 + 2 + 1 + 2
    assert len(found.table) + len(found.left_out) == len(items)
    # Dimensions are found by any spelling, or by the configuration.
    items.loc[items["dimension"] == "moves", "dimension"] = " Moves"
    items.loc[items["dimension"] == "taste", "dimension"] = "LOOK"
    assert "taste" not in str(labelled(items, index).left_out["reason"].tolist())
    with pytest.raises(InputError, match="none of the 1 items is usable"):
        labelled(items[items["answer"] == "99"], index)


def test_unknown_clips_and_a_clip_against_itself_are_rejected() -> None:
    items, index = tiny.tables()
    with pytest.raises(InputError, match=r"unified_items, row 2, field 'video_id_a': clip 'x'"):
        labelled(items.assign(video_id_a=["x", *items["video_id_a"][1:]]), index)
    pair = items[items["form"] == "pair"].head(1)
    with pytest.raises(InputError, match="is compared with itself"):
        labelled(pair.assign(video_id_b=pair["video_id_a"]), index)


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.5]), min_size=1, max_size=9), st.integers(0, 5))
def test_items_are_shown_by_their_weight_and_either_way_round_as_often(weights: list[float], seed: int) -> None:
    names = [f"item {at}" for at in range(len(weights))]
    drawing = Drawing(range(len(weights)), names, weights, seed=seed)
    count = round(40 * sum(weights))
    shown = [one for step in range(1, count + 1) for one in drawing.of_step(step, 1)]
    for row, weight in enumerate(weights):
        own = [one.turned for one in shown if one.row == row]
        assert abs(len(own) - 40 * weight) <= 1 + weight
        # Every second time the other way round; the last epoch may have begun with the others.
        assert abs(2 * sum(own) - len(own)) <= 2
    # A step depends on its number alone, whatever was asked before, and batches are cut from one order.
    again = Drawing(range(len(weights)), names, weights, seed=seed)
    step = max(1, count // 4)
    assert again.of_step(step, 2) == shown[2 * (step - 1) : 2 * step]
    with pytest.raises(InputError, match="no training item has a weight"):
        Drawing([0], ["item"], [0.0], seed=0)


def test_the_first_place_is_right_as_often_over_many_items() -> None:
    drawing = Drawing(range(2000), [str(at) for at in range(2000)], [1.0] * 2000, seed=0)
    turned = np.array([one.turned for step in range(1, 101) for one in drawing.of_step(step, 10)])
    assert 0.46 < turned.mean() < 0.54
