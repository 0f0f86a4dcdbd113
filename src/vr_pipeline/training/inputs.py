"""Hashes of what a policy was trained on, by which later steps see whether policies, pairs and weights fit together.

A policy carries them in ``provenance["training"]``, which its folder keeps: ``identity`` of the training, and under
``inputs`` what :func:`input_hashes` gives. Compute the same from the data at hand and compare.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vr_pipeline.identifiers import content_hash

if TYPE_CHECKING:
    import pandas as pd


def input_hashes(pairs: pd.DataFrame, reward: Mapping[str, str]) -> dict[str, str]:
    """Hashes of the pairs of a training and of the reward's parts; see ``CheckpointReward.hashes``."""
    return {"preference_pairs": pairs_hash(pairs), **reward}


def pairs_hash(pairs: pd.DataFrame) -> str:
    """Hash of which clip wins against which under which prompt; the order of rows does not matter."""
    rows = pairs[["prompt_id", "winner_video_id", "loser_video_id"]].astype(str)
    return listed_hash(" ".join(row) for row in rows.itertuples(index=False))


def reward_weights_hash(weights: Mapping[str, Any]) -> str:
    """Hash of reward weights as the catalog keeps them; the report names the same."""
    return content_hash("weights", json.dumps(weights, sort_keys=True))


def contents_hash(pairs: pd.DataFrame) -> str:
    """Hash the prompts and clips, by content, that training pairs name."""
    return content_hash("contents", listed_hash(used_prompts(pairs)), listed_hash(used_clips(pairs)))


def used_prompts(pairs: pd.DataFrame) -> set[str]:
    """List identifier and text of each prompt of training pairs."""
    return set(pairs["prompt_id"] + " " + pairs["prompt"])


def used_clips(pairs: pd.DataFrame) -> set[str]:
    """List identifier and hash of the file of each clip of training pairs."""
    sides = (pairs[f"{side}_video_id"] + " " + pairs[f"{side}_sha256"] for side in ("winner", "loser"))
    # A clip alone has no loser.
    return {clip for side in sides for clip in side[pairs["loser_video_id"].ne("") | side.notna()]}


def listed_hash(entries: Iterable[str]) -> str:
    """Hash of entries in any order."""
    return content_hash(*sorted(entries))
