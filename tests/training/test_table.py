"""The table that trainings start from, against the tables it is made of."""

from __future__ import annotations

import pandas as pd

from vr_pipeline.schemas import TrainingPairs
from vr_pipeline.training.inputs import contents_hash, used_clips
from vr_pipeline.training.table import clips_of, compared, join_pairs, judged_clips, prompts_of

PROMPTS = pd.DataFrame({"prompt_id": ["p", "q", "r"], "prompt": ["a red ball", "a blue ring", "unused"]})
INDEX = pd.DataFrame({"video_id": list("abcde"), "sha256": [letter * 64 for letter in "12345"]})
PAIRS = {
    "dpo": pd.DataFrame(
        {"prompt_id": ["p", "q"], "winner_video_id": ["a", "d"], "loser_video_id": ["b", "c"], "margin": 1.0}
    ),
    "mpo": pd.DataFrame({"prompt_id": ["p"], "winner_video_id": ["a"], "loser_video_id": ["c"], "margin": 1.0}),
}
REWARDS = {
    "dpo": pd.DataFrame({"video_id": list("abcde"), "total": [0.1, 0.2, 0.3, 0.4, 0.5]}),
    "mpo": pd.DataFrame({"video_id": list("abc"), "total": [7.0, 8.0, 9.0]}),
}


def test_every_recipe_has_its_own_pairs_and_rewards() -> None:
    table = TrainingPairs.validate(join_pairs(PAIRS, REWARDS, PROMPTS, INDEX))
    for recipe, pairs in PAIRS.items():
        own = table[table["recipe"] == recipe].reset_index(drop=True)
        names = ["prompt_id", "winner_video_id", "loser_video_id"]
        pd.testing.assert_frame_equal(own[names], pairs[names])
        assert set(clips_of(own)["video_id"]) == {*pairs["winner_video_id"], *pairs["loser_video_id"]}
        totals = REWARDS[recipe].set_index("video_id")["total"]
        for side in ("winner", "loser"):
            assert list(own[f"{side}_reward"]) == list(totals[pairs[f"{side}_video_id"]])
        # What a training is recorded to have seen does not depend on what else the tables hold, nor on order.
        alone = join_pairs({recipe: pairs.iloc[::-1]}, REWARDS, PROMPTS.iloc[::-1], INDEX.head(4))
        assert contents_hash(own) == contents_hash(alone)
        assert contents_hash(own) != contents_hash(own.assign(prompt="another"))
        assert contents_hash(own) != contents_hash(own.assign(loser_sha256="another"))


def test_what_is_not_known_is_in_no_list() -> None:
    table = TrainingPairs.validate(join_pairs(PAIRS, REWARDS, PROMPTS.head(1), INDEX.head(2)))
    assert list(clips_of(table)["video_id"]) == ["a", "b"]
    assert list(prompts_of(table)["prompt_id"]) == ["p"]


def test_clips_without_a_partner_are_rows_without_a_loser() -> None:
    rewards = pd.DataFrame({"video_id": list("abcde"), "prompt_id": list("ppqqr"), "total": [1.0, 2, 3, 4, 5]})
    splits = PROMPTS.assign(split=["train", "train", "test"])
    clips = judged_clips(rewards, splits)
    assert list(clips["winner_video_id"]) == list("abcd"), "those of training prompts"
    both = pd.concat([PAIRS["mpo"][clips.columns], clips], ignore_index=True)
    index = INDEX.assign(generator="maker", seed=range(2**62, 2**62 + 5))
    table = TrainingPairs.validate(join_pairs({"nft": both}, {"nft": rewards}, splits, index))
    assert list(clips_of(table)["video_id"]) == list("abcd")
    assert list(compared(table)["loser_video_id"]) == ["c"]
    assert table["winner_origin"].tolist()[0] == f"maker {2**62}", "seeds keep all of their digits"
    assert table["loser_origin"].isna().tolist() == [False, True, True, True, True]
    assert len(used_clips(table)) == 4
    assert contents_hash(table) == contents_hash(table.iloc[::-1])
