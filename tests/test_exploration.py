"""Tables for looking around agree with the functions that made the results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from report_inputs import report_inputs
from vr_pipeline import exploration
from vr_pipeline.rewards.checklist.tables import reward_table
from vr_pipeline.rewards.checklist.weights import RewardWeights


@pytest.fixture(scope="module")
def inputs():
    return report_inputs(prompts=4, samples=2, steps=5)


@pytest.fixture(scope="module")
def answers(inputs) -> pd.DataFrame:
    random = np.random.default_rng(3)
    rows = [
        {"video_id": video, "question_id": question, "p_yes": random.random(), "outside_mass": 0.01, "gated": False}
        for video in inputs["evaluation_video_index"]["video_id"]
        for question in inputs["checklist"].question_ids
    ]
    table = pd.DataFrame(rows)
    table["answer"] = table["p_yes"] > 0.5
    return table


def test_the_parts_of_a_score_add_up_to_it(inputs, answers):
    weights, checklist = RewardWeights.from_json(inputs["reward_weights"]), inputs["checklist"]
    totals = reward_table(answers, inputs["evaluation_video_index"], checklist, weights).set_index("video_id")["total"]
    for video in inputs["evaluation_video_index"]["video_id"].head(5):
        table = exploration.what_moved_a_score(answers, weights, checklist, video)
        assert table["part"].sum() == pytest.approx(totals[video])
        assert table["average"].sum() == pytest.approx(totals.mean())
        assert table["difference"].abs().is_monotonic_decreasing
    with pytest.raises(KeyError):
        exploration.what_moved_a_score(answers, weights, checklist, "nobody")


def test_answers_by_question_count_what_was_asked(inputs, answers):
    gated = answers.copy()
    first = inputs["checklist"].question_ids[0]
    off = (gated["question_id"] == first) & (gated["p_yes"] > 0.5)
    gated.loc[off, "gated"] = True
    table = exploration.answers_by_question(gated, inputs["checklist"]).set_index("question_id")
    assert list(table.index) == list(inputs["checklist"].question_ids)
    assert table.loc[first, "yes"] == 0.0
    assert table.loc[first, "gated"] == pytest.approx(off.sum() / (gated["question_id"] == first).sum())
    other = answers[answers["question_id"] == inputs["checklist"].question_ids[1]]
    assert table.iloc[1]["yes"] == pytest.approx(other["answer"].mean())


def test_weights_and_gains_are_those_of_the_artifacts(inputs):
    weights = RewardWeights.from_json(inputs["reward_weights"])
    table = exploration.weights_table(weights, inputs["checklist"])
    assert table["weight"].is_monotonic_decreasing
    assert dict(zip(table["question_id"], table["weight"], strict=True)) == pytest.approx(
        dict(zip(weights.question_ids, weights.weights.tolist(), strict=True))
    )
    gains = exploration.gains_table(inputs["evaluation_metrics"]).set_index(["policy", "by"])
    assert gains.loc[("mpo", "judge"), "gain"] == inputs["evaluation_metrics"]["gain"]["mpo"]["judge"]["mean"]
    rewards = exploration.rewards_by_policy(inputs["evaluation_metrics"], "oracle")
    parts = rewards.drop(columns="total").sum(axis=1)
    assert parts.to_numpy() == pytest.approx(rewards["total"].to_numpy(), abs=1e-6)


def test_extremes_are_the_ends_of_the_order(inputs):
    rewards = inputs["evaluation_rewards"]
    table = exploration.extreme_clips(rewards, inputs["evaluation_video_index"], count=2)
    assert table["total"].iloc[0] == rewards["total"].min()
    assert table["total"].iloc[-1] == rewards["total"].max()
    assert len(table) == 4


def test_clips_that_please_the_judge_alone_do(inputs):
    judge, oracle, index = (
        inputs["evaluation_rewards"],
        inputs["evaluation_oracle_rewards"],
        inputs["evaluation_video_index"],
    )
    table = exploration.pleasing_the_judge_alone(judge, oracle, index, "mpo", count=100)
    for rewards, column, sign in ((judge, "judge", 1), (oracle, "oracle", -1)):
        totals = rewards.set_index("video_id")["total"]
        for row in table.itertuples():
            same = (index["prompt"] == row.prompt) & (index["sample_index"] == row.sample_index)
            original = index.loc[same & (index["policy"] == "original"), "video_id"].iloc[0]
            assert sign * (totals[row.video_id] - totals[original]) > 0
            assert sign * getattr(row, column) > 0
    assert exploration.pleasing_the_judge_alone(judge, oracle.head(0), index, "mpo").empty
    # Turned round, what pleased both pleases the judge alone.
    turned = exploration.pleasing_the_judge_alone(judge, oracle.assign(total=-oracle["total"]), index, "mpo", count=100)
    assert len(table) + len(turned) > 0


def test_fates_add_up():
    decisions = pd.DataFrame(
        {
            "step": ["clean", "kept", "clean", "rouge"],
            "kept": [False, True, False, False],
            "reason": ["a", "", "a", "b"],
        }
    )
    table = exploration.fate_of_prompts(decisions)
    assert table["prompts"].sum() == len(decisions)
    assert table.set_index("step").loc["clean", "most often because"] == "a"


def test_side_by_side_has_a_row_a_policy(inputs):
    index = inputs["evaluation_video_index"]
    figure = exploration.clips_side_by_side(inputs["evaluation_videos"], index, index["prompt_id"].iloc[0])
    labels = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert labels == ["original", "dpo", "mpo"]
