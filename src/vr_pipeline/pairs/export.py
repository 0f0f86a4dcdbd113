"""Pairs in the formats of other trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.storage.atomic import write_text

if TYPE_CHECKING:
    import pandas as pd


def video_dpo_list(pairs: pd.DataFrame, video_index: pd.DataFrame) -> list[dict[str, Any]]:
    """Return pairs as VideoDPO's pair.json, with the preferred clip as video1 and the margin as score."""
    clips = video_index.set_index("video_id")[["path", "prompt"]].astype(str)
    winners, losers = clips.loc[pairs["winner_video_id"]], clips.loc[pairs["loser_video_id"]]
    columns = zip(winners["path"], losers["path"], winners["prompt"], pairs["margin"], strict=True)
    return [
        {"video1": winner, "video2": loser, "frame_caption": prompt, "score": float(margin)}
        for winner, loser, prompt, margin in columns
    ]


def unified_reward_list(pairs: pd.DataFrame, video_index: pd.DataFrame) -> list[dict[str, Any]]:
    """Return pairs as UnifiedReward's list: id, caption, chosen, rejected."""
    return [
        {"id": i, "caption": pair["frame_caption"], "chosen": pair["video1"], "rejected": pair["video2"]}
        for i, pair in enumerate(video_dpo_list(pairs, video_index))
    ]


def write_list(entries: list[dict[str, Any]], path: str | Path) -> None:
    """Write one of these lists as JSON."""
    write_text(Path(path), json.dumps(entries, ensure_ascii=False, indent=1) + "\n")
