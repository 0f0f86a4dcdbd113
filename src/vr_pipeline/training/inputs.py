"""Hashes of a policy's training data, by which later steps check that policies, pairs and weights belong together.

A policy has them in ``provenance["training"]``: the ``identity`` of the training, and :func:`input_hashes` under
``inputs``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vr_pipeline.identifiers import content_hash

if TYPE_CHECKING:
    import pandas as pd

HOLD_OUT = "hold_out_"
"""Prefix of the columns of hold-out rewards: their mean and, with ``_se``, its standard error."""


def input_hashes(pairs: pd.DataFrame, reward: Mapping[str, str]) -> dict[str, str]:
    """Return hashes of a training's pairs and of the reward's parts; see ``CheckpointReward.hashes``."""
    return {"preference_pairs": pairs_hash(pairs), **reward}


def pairs_hash(pairs: pd.DataFrame) -> str:
    """Hash prompt, winner and loser of pairs, in any order of rows."""
    rows = pairs[["prompt_id", "winner_video_id", "loser_video_id"]].astype(str)
    return listed_hash(" ".join(row) for row in rows.itertuples(index=False))


def reward_weights_hash(weights: Mapping[str, Any]) -> str:
    """Hash reward weights as stored in the catalog; the report shows this hash."""
    return content_hash("weights", json.dumps(weights, sort_keys=True))


def contents_hash(pairs: pd.DataFrame) -> str:
    """Hash the prompts and clips of training pairs by content."""
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
    """Hash entries in any order."""
    return content_hash(*sorted(entries))
