"""The table that trainings start from: pairs of all recipes with all that is known of their clips and prompts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

HELD_OUT = "held_out"
"""In place of a recipe: pairs that are not trained on, but measure the training."""
PAIR = ["prompt_id", "winner_video_id", "loser_video_id"]
_SIDES = ("winner", "loser")


def join_pairs(
    pairs: Mapping[str, pd.DataFrame], rewards: Mapping[str, pd.DataFrame], prompts: pd.DataFrame, index: pd.DataFrame
) -> pd.DataFrame:
    """Join the pairs of all recipes with the texts of their prompts, and the contents and rewards of their clips.

    Args:
        pairs: recipe to its pairs.
        rewards: recipe to the rewards by which its pairs were selected.
        prompts: table with prompt_id and prompt.
        index: the clips.

    Returns:
        schema ``TrainingPairs``; what is not known of a clip or prompt is empty there.
    """
    texts = prompts.set_index("prompt_id")["prompt"]
    known = index.set_index("video_id")
    tables = []
    for recipe, table in pairs.items():
        totals = rewards[recipe].set_index("video_id")["total"]
        joined = table[PAIR].assign(recipe=recipe, prompt=table["prompt_id"].map(texts))
        for side in _SIDES:
            clips = table[f"{side}_video_id"]
            of_side = {f"{side}_sha256": clips.map(known["sha256"]), f"{side}_reward": clips.map(totals)}
            if {"generator", "seed"} <= set(known):
                origins = known["generator"].astype(str) + " " + known["seed"].astype(str)
                of_side[f"{side}_origin"] = clips.map(origins).astype(object)
            joined = joined.assign(**of_side)
        tables.append(joined)
    return pd.concat(tables, ignore_index=True)


def judged_clips(rewards: pd.DataFrame, prompts: pd.DataFrame) -> pd.DataFrame:
    """List all clips with rewards of training prompts, as pairs without a loser, for objectives that need no pairs.

    Args:
        rewards: table with video_id and prompt_id.
        prompts: table with prompt_id and split.
    """
    training = prompts.loc[prompts["split"] == "train", "prompt_id"]
    chosen = rewards.loc[rewards["prompt_id"].isin(training), ["prompt_id", "video_id"]]
    return chosen.rename(columns={"video_id": "winner_video_id"}).assign(loser_video_id="")


def clips_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """List the clips of training pairs, each once: video_id and sha256; without those that no index lists."""
    names = ["video_id", "sha256"]
    sides = [pairs[[f"{side}_{name}" for name in names]].set_axis(names, axis=1) for side in _SIDES]
    clips = pd.concat(sides)
    return clips[clips["video_id"] != ""].drop_duplicates("video_id", ignore_index=True).dropna()


def compared(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return those rows of training pairs that are pairs, and not clips alone."""
    return pairs[pairs["loser_video_id"] != ""]


def prompts_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the prompts of training pairs, each once: prompt_id and prompt; without those that no table has."""
    return pairs[["prompt_id", "prompt"]].drop_duplicates("prompt_id", ignore_index=True).dropna()
