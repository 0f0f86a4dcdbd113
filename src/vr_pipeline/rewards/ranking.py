"""A reward as a ranker: the clip of the higher total is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.video.clip import Frames

Clips = Sequence[str | Path | Frames]

NO_DIFFERENCE = 1e-9
"""Totals that differ by no more are equal: sums of the same weights in another order differ by float noise."""


class RewardRanker:
    """Compares clips by their rewards; see :class:`~vr_pipeline.rewards.contract.Ranker`.

    A total says which clip is better and not how surely, so that probabilities are 0 or 1. Each clip is scored by
    itself: the position of a clip has no influence.
    """

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    @property
    def identity(self) -> str:
        """Hash of all that its comparisons depend on."""
        return content_hash("ranker from a reward", self.model.identity)

    def compare(self, clips_a: Clips, clips_b: Clips, prompts: Sequence[str], fps: float | None = None) -> pd.DataFrame:
        """Compare clips pair by pair; see :meth:`vr_pipeline.rewards.contract.Ranker.compare`."""
        first, second = (self.model.score(clips, prompts, fps)["total"].to_numpy() for clips in (clips_a, clips_b))
        difference = np.asarray(first - second, dtype=np.float64)
        return pd.DataFrame(
            {
                "p_a": (difference > NO_DIFFERENCE).astype(float),
                "p_b": (difference < -NO_DIFFERENCE).astype(float),
                "p_tie": (np.abs(difference) <= NO_DIFFERENCE).astype(float),
                "position_bias": 0.0,
            }
        )
