"""Which pairs a latent reward learns from, and what they say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from tiny_latent_reward import parameters
from vr_pipeline import schemas
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.training.latent_reward.labels import pairs_of_own_clips, pairs_of_people


def tables(prompts: int = 6, clips: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(0)
    names = [(f"prompt {one}", f"{one}-{number}") for one in range(prompts) for number in range(clips)]
    index = pd.DataFrame(names, columns=["prompt", "video_id"])
    index["prompt_id"] = index["prompt"].map(prompt_id)
    index = index.assign(status="ok", error="", sha256=[f"hash {name}" for name in index["video_id"]])
    rewards = index[["video_id", "prompt_id"]].assign(
        dim_a=random.integers(0, 3, len(index)).astype(float), dim_b=random.normal(size=len(index)), dim_c=2.0
    )
    return rewards.assign(total=rewards["dim_a"] + rewards["dim_b"]), index


@pytest.mark.parametrize("width", [0.0, 0.5])
def test_labels_are_the_order_of_the_rewards(width: float) -> None:
    rewards, index = tables()
    found = pairs_of_own_clips(rewards, index, parameters(own_pairs={"pairs_per_prompt": None, "tie_width": width}))
    schemas.LatentRewardPairs.validate(found)
    known = rewards.set_index("video_id")
    # In dimension c all clips are alike.
    assert [name for name in found if name.startswith("label_")] == ["label_a", "label_b"]
    for name in ("a", "b"):
        values = known[f"dim_{name}"]
        for row in found.to_dict("records"):
            apart = values[row["video_id_a"]] - values[row["video_id_b"]]
            tied = abs(apart) <= width * values.std(ddof=0) + 1e-9
            assert row[f"label_{name}"] == (0.0 if tied else np.sign(apart))
    expected = {
        frozenset(pair) for _, part in rewards.groupby("prompt_id") for pair in combinations(part["video_id"], 2)
    }
    assert {frozenset(pair) for pair in zip(found["video_id_a"], found["video_id_b"], strict=True)} == expected
    assert (found["sha256_b"] == "hash " + found["video_id_b"]).all()
    assert found.groupby("prompt_id")["split"].nunique().max() == 1


def test_pairs_do_not_depend_on_order_or_on_other_prompts() -> None:
    rewards, index = tables()
    few = parameters(own_pairs={"pairs_per_prompt": 3})
    found = pairs_of_own_clips(rewards, index, few)
    assert found.groupby("prompt_id").size().tolist() == [3] * 6
    shuffled = pairs_of_own_clips(rewards.sample(frac=1.0, random_state=1), index.sample(frac=1.0, random_state=2), few)
    pd.testing.assert_frame_equal(found, shuffled)
    without = rewards[rewards["prompt_id"] != rewards["prompt_id"].iloc[0]]
    others = pairs_of_own_clips(without, index, few)
    assert set(others["pair_id"]) == set(found.loc[found["prompt_id"] != rewards["prompt_id"].iloc[0], "pair_id"])


def test_clips_that_failed_are_left_out() -> None:
    rewards, index = tables()
    index.loc[0, ["status", "error"]] = ["failed", "broken"]
    found = pairs_of_own_clips(rewards, index, parameters(own_pairs={"pairs_per_prompt": None}))
    assert index["video_id"][0] not in {*found["video_id_a"], *found["video_id_b"]}


def test_dimensions_are_named_and_chosen() -> None:
    rewards, index = tables()
    chosen = parameters(dimensions=[{"name": "motion", "criterion": "b"}])
    found = pairs_of_own_clips(rewards, index, chosen)
    whole = pairs_of_own_clips(rewards, index, parameters())
    assert found["label_motion"].tolist() == whole["label_b"].tolist()
    with pytest.raises(InputError, match="Choose one of a, b, c"):
        pairs_of_own_clips(rewards, index, parameters(dimensions=[{"name": "motion"}]))


def test_people_are_asked_by_criterion() -> None:
    _, index = tables()
    rows = [
        {"prompt": prompt, "video_id_a": first, "video_id_b": second, "annotator": annotator, "source": "people"}
        for prompt, part in index.groupby("prompt")
        for first, second in combinations(part["video_id"], 2)
        for annotator in ("x", "y", "z")
    ]
    said = pd.DataFrame(rows)
    said["pair_id"] = said["video_id_a"] + " " + said["video_id_b"]
    said["preference"] = "tie"
    # Two of three prefer the second.
    said["preference_motion"] = np.where(said["annotator"] == "x", "a", "b")
    said["preference_text"] = np.where(said["video_id_a"] == "0-0", None, "a")
    clips = index.rename(columns={"sha256": "content"})
    found = pairs_of_people(said, clips, parameters())
    schemas.LatentRewardPairs.validate(found)
    assert (found["label_motion"] == -1.0).all()
    assert found.loc[found["video_id_a"] == "0-0", "label_text"].isna().all()
    assert (found.loc[found["video_id_a"] != "0-0", "label_text"] == 1.0).all()
    overall = pairs_of_people(said, clips, parameters(dimensions=[{"name": "whole", "criterion": "preference"}]))
    assert (overall["label_whole"] == 0.0).all()
