"""From long answers to arrays and rewards."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.checklist import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.linear import score
from vr_pipeline.rewards.checklist.tables import answers_matrix, reward_table, weighted_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.schemas import Rewards


def long_table(probability: np.ndarray, videos: list[str], questions: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "video_id": video,
                "question_id": question,
                "p_yes": probability[i, k],
                "answer": probability[i, k] > 0.5,
                "outside_mass": 0.0,
                "gated": False,
            }
            for i, video in enumerate(videos)
            for k, question in enumerate(questions)
        ]
    )


@given(st.integers(0, 100))
def test_rows_and_columns_come_as_asked_whatever_the_order_of_the_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    videos, questions = ["v1", "v2", "v3"], ["q1", "q2", "q3", "q4"]
    probability = rng.random((3, 4))
    table = long_table(probability, videos, questions).sample(frac=1, random_state=seed)
    asked = rng.integers(3, size=5)
    columns = rng.permutation(4)[:2]
    arguments = (table, [videos[i] for i in asked], [questions[k] for k in columns])
    np.testing.assert_array_equal(answers_matrix(*arguments), probability[np.ix_(asked, columns)])
    np.testing.assert_array_equal(answers_matrix(*arguments, kind="binary"), probability[np.ix_(asked, columns)] > 0.5)


def test_gated_answers_are_left_open_and_alignment_keeps_its_probability() -> None:
    table = long_table(np.array([[0.7, 0.2]]), ["v"], ["q1", "q2"])
    table.loc[1, "gated"] = True
    np.testing.assert_array_equal(answers_matrix(table, ["v"], ["q1", "q2"], kind="binary"), [[1.0, np.nan]])
    kept = answers_matrix(table, ["v"], ["q1", "q2"], kind="binary", always_probability=["q1"])
    np.testing.assert_array_equal(kept, [[0.7, np.nan]])


def test_missing_double_and_empty_answers_are_named() -> None:
    table = long_table(np.array([[0.7, 0.2], [0.1, 0.3]]), ["v", "w"], ["q1", "q2"])
    with pytest.raises(InputError, match="video 'w' has no answer to question 'q2'"):
        answers_matrix(table.iloc[:3], ["v", "w"], ["q1", "q2"])
    with pytest.raises(InputError, match="video 'v' has 2 answers to question 'q1'"):
        answers_matrix(pd.concat([table, table.iloc[:1]]), ["v", "w"], ["q1", "q2"])
    for value in (np.nan, np.inf, -0.1, 1.5):
        with pytest.raises(InputError, match=f"video 'v' to question 'q2' is {value}, not a probability"):
            answers_matrix(table.assign(p_yes=[0.7, value, 0.1, 0.3]), ["v", "w"], ["q1", "q2"])


def test_rewards_of_readable_clips(checklist: Checklist) -> None:
    rng = np.random.default_rng(0)
    videos = ["v3", "v1", "v2", "broken"]
    probability = rng.random((4, 16))
    answers = long_table(probability, videos, checklist.question_ids).query("video_id != 'broken'")
    index = pd.DataFrame(
        {
            "video_id": videos,
            "prompt_id": ["p", "p", "o", "o"],
            "sample_index": [1, 0, 0, 1],
            "status": ["ok", "ok", "ok", "failed"],
        }
    )
    weights = RewardWeights(tuple(weighted_questions(checklist)), rng.random(16), checklist_hash=checklist.hash)
    table = reward_table(answers, index, checklist, weights)
    assert list(table["video_id"]) == ["v2", "v1", "v3"]
    np.testing.assert_allclose(table["total"], score(probability[[2, 1, 0]], weights))
    np.testing.assert_allclose(table.filter(like="dim_").sum(axis=1), table["total"])
    Rewards.validate(table)
    both = reward_table(answers, index.assign(policy="mpo"), checklist, weights)
    assert set(both["policy"]) == {"mpo"}
    other = RewardWeights(tuple(weighted_questions(checklist)), rng.random(16), checklist_hash="another")
    with pytest.raises(InputError, match=r"checklist another, but"):
        reward_table(answers, index, checklist, other)
