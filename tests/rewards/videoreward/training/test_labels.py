"""Labels of pairs by dimension: what is counted, how pairs are split, and what is rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_rewards
from tiny_rewards import tables
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.rewards.videoreward.settings import NetworkSettings
from vr_pipeline.rewards.videoreward.training.labels import LabelledPairs, label_pairs, split_by_unit, trainable

START = {"family": "qwen2_vl", "path": "./model"}


def labelled(preferences: pd.DataFrame, index: pd.DataFrame, **changes: Any) -> LabelledPairs:
    parameters = tiny_rewards.parameters(START, **changes)
    assert parameters.network is not None
    return label_pairs(preferences, index, parameters.network.dimensions, parameters)


def network(*dimensions: dict[str, Any]) -> dict[str, Any]:
    return {"dimensions": list(dimensions)}


def test_labels_of_several_annotators_and_sides_become_one() -> None:
    preferences, index = tables()
    pair = preferences.iloc[[0]]
    turned = pair.assign(
        video_id_a=pair["video_id_b"], video_id_b=pair["video_id_a"], annotator="two", preference_visual="tie"
    ).assign(grade_a_visual=5.0, grade_b_visual=5.0)
    found = labelled(pd.concat([preferences, turned, turned.assign(annotator="three")]), index)
    row = found.table.index[found.table["pair_id"] == pair["pair_id"].iloc[0]][0]
    assert len(found.table) == 36
    # Two of three say tie; the text is masked by all.
    assert found.label[row].tolist() == pytest.approx([0.0, np.nan], nan_ok=True)
    first = found.table["video_id_a"][row]
    own = pair["grade_a_visual"].iloc[0] if first == pair["video_id_a"].iloc[0] else pair["grade_b_visual"].iloc[0]
    assert found.grades[row, 0, 0] == pytest.approx((own + 10) / 3)
    assert np.isnan(found.grades[:, :, 1]).all()


def test_a_criterion_may_have_another_name_and_the_whole_is_one() -> None:
    preferences, index = tables()
    found = labelled(
        preferences,
        index,
        network=network({"name": "sharp", "criterion": "visual"}, {"name": "good", "criterion": "preference"}),
    )
    assert found.names == ("sharp", "good")
    np.testing.assert_array_equal(found.label[:, 1], found.total)
    assert (found.label[:, 0] == 0).sum() == 12


def test_where_there_are_no_labels_the_higher_grade_is_one() -> None:
    preferences, index = tables()
    graded = preferences.drop(columns="preference_visual")
    found = labelled(graded, index, network=network({"name": "visual"}), loss="regression")
    np.testing.assert_array_equal(found.label[:, 0], np.sign(found.grades[:, 0, 0] - found.grades[:, 1, 0]))
    assert len(trainable(found, tiny_rewards.parameters(START, loss="regression"))) > 0


def test_pairs_that_are_tied_in_every_dimension_can_be_left_out() -> None:
    preferences, index = tables()
    preferences.loc[preferences["preference_visual"] == "tie", "preference_text"] = None
    found = labelled(preferences, index)
    train = set(found.rows("train").tolist())
    tied = {row for row in train if found.label[row, 0] == 0}
    assert tied
    for changes, expected in (({}, train), ({"keep_ties": False}, train - tied), ({"loss": "bt"}, train - tied)):
        assert set(trainable(found, tiny_rewards.parameters(START, **changes)).tolist()) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.integers(0, 5), st.sampled_from([(0.1, 0.1), (0.3, 0.0), (0.01, 0.6), (0.45, 0.45)]))
def test_the_split_is_by_prompt_whole_and_the_same_for_more_prompts(
    count: int, seed: int, shares: tuple[float, float]
) -> None:
    parameters = HeldOutParameters(validation_share=shares[0], test_share=shares[1], seed=seed)
    units = pd.Series([f"prompt {number}" for number in range(count) for _ in range(3)])
    split = split_by_unit(units, parameters)
    assert split.groupby(units).nunique().max() == 1
    assert set(split) == {"train", "validation", "test"} - (set() if shares[1] else {"test"})
    shuffled = units.sample(frac=1, random_state=seed)
    pd.testing.assert_series_equal(split_by_unit(shuffled, parameters), split.loc[shuffled.index])
    if count >= 40 and min(share for share in shares if share) >= 0.1:
        # So many prompts leave no side empty, and then only the hash counts.
        more = pd.concat([units, pd.Series([f"another {number}" for number in range(50)])], ignore_index=True)
        pd.testing.assert_series_equal(split_by_unit(more, parameters)[: len(units)], split)


def test_prompts_that_share_clips_stay_together_unless_all_would() -> None:
    preferences, index = tables()
    first, second = tiny_rewards.PROMPTS[:2]
    shared = preferences.copy()
    at = shared.index[shared["prompt"] == second][0]
    shared.loc[at, "video_id_a"] = f"{first}/0"
    units = labelled(shared, index).table.groupby("prompt")["unit"].first()
    assert units[first] == units[second]
    assert units.nunique() == 11
    # A clip for another prompt in every prompt's pairs: the pair's own prompt decides.
    for number, prompt in enumerate(tiny_rewards.PROMPTS):
        at = shared.index[shared["prompt"] == prompt][2]
        shared.loc[at, "video_id_a"] = f"{tiny_rewards.PROMPTS[number - 1]}/0"
    found = labelled(shared, index)
    assert found.table.groupby("prompt")["unit"].first().nunique() == 12
    counts = found.counts()
    assert counts["test"]["clips_trained_on"] + counts["validation"]["clips_trained_on"] > 0


def broken(what: str) -> tuple[tuple[pd.DataFrame, pd.DataFrame], dict[str, Any]]:
    """Input with one thing wrong, and the settings that it is wrong for."""
    preferences, index = tables()
    visual = network({"name": "visual"})
    changes: dict[str, Any] = {}
    if what == "criterion":
        changes["network"] = network({"name": "visual"}, {"name": "sound"})
    elif what == "itself":
        preferences.loc[4, "video_id_b"] = preferences.loc[4, "video_id_a"]
    elif what == "unknown clip":
        index = index[index["video_id"] != preferences.loc[2, "video_id_b"]]
    elif what == "no clip":
        index = index.assign(status="failed", error="there is no such file in the folder of clips")
    elif what.startswith("ties"):
        preferences["preference_visual"] = "tie"
        changes |= {"network": visual, "loss": "bt"}
    elif what == "no label":
        preferences["preference_text"] = None
    elif what == "only held out":
        found = labelled(preferences, index)
        train = set(found.table["pair_id"].iloc[found.rows("train")])
        preferences.loc[preferences["pair_id"].isin(train), "preference_text"] = None
    elif what == "validation":
        found = labelled(preferences, index)
        held = preferences["pair_id"].isin(found.table["pair_id"].iloc[found.rows("validation")])
        preferences.loc[held, ["preference_visual", "preference_text"]] = "tie"
    elif what == "grade":
        preferences.loc[6, "grade_b_visual"] = 7.5
        changes |= {"network": visual, "loss": "regression"}
    elif what == "no grades":
        changes |= {"network": network({"name": "text"}), "loss": "regression"}
    elif what == "grades of all":
        changes |= {"network": network({"name": "good", "criterion": "preference"}), "loss": "regression"}
    elif what == "no grade":
        preferences[["grade_a_visual", "grade_b_visual"]] = np.nan
        changes |= {"network": visual, "loss": "regression"}
    elif what == "prompts":
        preferences = preferences[preferences["prompt"].isin(tiny_rewards.PROMPTS[:2])]
    return (preferences, index), changes


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "criterion",
            r"human_preferences, field 'preference_sound': the preferences have no criterion 'sound', "
            r"only preference, visual, text",
        ),
        ("itself", r"human_preferences, row 6, field 'video_id_b': video '.*' is compared with itself"),
        ("unknown clip", r"human_preferences, row 4, field 'video_id_b': video '.*' is not one of the 47 clips"),
        ("no clip", r"none of the 36 pairs has two readable clips.*: there is no such file"),
        (
            "ties",
            r"field 'preference_visual': all 36 labels of dimension 'visual' are ties, which the loss bt"
            r" ignores.* set loss to btt",
        ),
        ("no label", r"field 'preference_text': dimension 'text' has no usable label.*criterion 'text'"),
        ("only held out", r"dimension 'text' has no usable label on the training side of the split"),
        ("validation", r"all labels of the \d+ validation pairs are ties"),
        ("grade", r"human_preferences, row 8, field 'grade_b_visual': the grade 7.5 is not between 1 and 5"),
        ("no grades", r"field 'grade_a_text': the preferences have no criterion 'text'"),
        ("grades of all", r"dimension 'good' uses the overall preference, which has no grades"),
        ("no grade", r"field 'grade_a_visual': dimension 'visual' has no usable grade"),
        ("prompts", r"there are 2 prompt\(s\), but train and validation and test need one each"),
    ],
)
def test_what_cannot_be_trained_on_is_rejected_with_its_place(what: str, message: str) -> None:
    given, changes = broken(what)
    with pytest.raises(InputError, match=message):
        labelled(*given, **changes)


def test_ties_alone_train_btt_which_is_said(caplog: pytest.LogCaptureFixture) -> None:
    preferences, index = tables()
    preferences["preference_visual"] = "tie"
    found = labelled(preferences, index, network=network({"name": "visual"}))
    assert (found.label == 0).all()
    assert "All labels are ties: the reward cannot learn which clip is better" in caplog.text


def test_one_criterion_alone_works() -> None:
    preferences, index = tables()
    plain = preferences[["pair_id", "prompt", "video_id_a", "video_id_b", "preference", "annotator", "source"]]
    found = labelled(plain, index, network=network({"name": "overall", "criterion": "preference"}))
    assert found.counts()["train"]["labels"]["overall"]["masked"] == 0
    assert NetworkSettings.model_validate(network({"name": "overall", "criterion": "preference"})).names == ("overall",)
