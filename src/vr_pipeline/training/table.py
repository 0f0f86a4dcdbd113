"""The table of training pairs: pairs of all recipes with their clips, prompts and rewards."""

from collections.abc import Mapping

import pandas as pd

from vr_pipeline.identifiers import IMAGE

HELD_OUT = "held_out"
"""Stands for a recipe: held-out pairs of validation."""
PAIR = ["prompt_id", "winner_video_id", "loser_video_id"]
_SIDES = ("winner", "loser")


def join_pairs(
    pairs: Mapping[str, pd.DataFrame], rewards: Mapping[str, pd.DataFrame], prompts: pd.DataFrame, index: pd.DataFrame
) -> pd.DataFrame:
    """Join the pairs of all recipes with the texts of their prompts, and the contents and rewards of their clips.

    Args:
        pairs: recipe -> its pairs.
        rewards: recipe -> the rewards by which its pairs were selected.
        prompts: table with prompt_id and prompt, and image if clips start from images.
        index: the clips.

    Returns:
        schema ``TrainingPairs``; unknown values of a clip or prompt are empty.
    """
    texts = prompts.set_index("prompt_id")["prompt"]
    known = index.set_index("video_id")
    tables = []
    for recipe, table in pairs.items():
        totals = rewards[recipe].set_index("video_id")["total"]
        joined = table[PAIR].assign(recipe=recipe, prompt=table["prompt_id"].map(texts))
        if IMAGE in prompts:
            joined[IMAGE] = table["prompt_id"].map(prompts.set_index("prompt_id")[IMAGE])
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
    """List all scored clips of training prompts as pairs without a loser, for objectives that need no pairs.

    Args:
        rewards: table with video_id and prompt_id.
        prompts: table with prompt_id and split.
    """
    training = prompts.loc[prompts["split"] == "train", "prompt_id"]
    chosen = rewards.loc[rewards["prompt_id"].isin(training), ["prompt_id", "video_id"]]
    return chosen.rename(columns={"video_id": "winner_video_id"}).assign(loser_video_id="")


def clips_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """List the clips of training pairs once each: video_id and sha256; without clips missing in the index."""
    names = ["video_id", "sha256"]
    sides = [pairs[[f"{side}_{name}" for name in names]].set_axis(names, axis=1) for side in _SIDES]
    clips = pd.concat(sides)
    return clips[clips["video_id"] != ""].drop_duplicates("video_id", ignore_index=True).dropna()


def compared(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are pairs, not single clips."""
    return pairs[pairs["loser_video_id"] != ""]


def prompts_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the prompts of training pairs, each once: prompt_id, prompt, image; without those that no table has."""
    columns = ["prompt_id", "prompt", *([IMAGE] if IMAGE in pairs else [])]
    return pairs[columns].drop_duplicates("prompt_id", ignore_index=True).dropna()
