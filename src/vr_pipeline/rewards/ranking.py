"""A reward as a ranker: the clip with the higher total is better."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip, Sampling

Clips = Sequence[str | Path | Frames]

NO_DIFFERENCE = 1e-9
"""Largest difference of equal totals: sums in another order differ by rounding."""


class RewardRanker:
    """Compares clips by their rewards; see :class:`~vr_pipeline.rewards.ranker.Ranker`.

    A total has no uncertainty, so probabilities are 0 or 1. Each clip is scored alone, so order has no influence.
    """

    orders: ClassVar[int] = 0

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    @property
    def identity(self) -> str:
        """Hash of everything that determines its comparisons."""
        return content_hash("ranker from a reward", self.model.identity)

    def sampling(self) -> Sampling | None:
        """Return which frames the reward reads."""
        return self.model.sampling(self.model.loaded())

    def compare(self, clips_a: Clips, clips_b: Clips, prompts: Sequence[str], fps: float | None = None) -> pd.DataFrame:
        """Compare clips pair by pair; see :meth:`vr_pipeline.rewards.ranker.Ranker.compare`."""
        return self._compared(*(self.model.score(clips, prompts, fps)[self.columns] for clips in (clips_a, clips_b)))

    def compare_group(
        self, clips: Mapping[str, SampledClip], pairs: Sequence[tuple[str, str]], prompt: str
    ) -> pd.DataFrame:
        """Score each clip once; see :meth:`vr_pipeline.rewards.ranker.Ranker.compare_group`."""
        named = [replace(clip, video_id=name, prompt=prompt) for name, clip in clips.items()]
        scores = self.model.score_sampled(named).set_index("video_id")[self.columns].astype(np.float64)
        return self._compared(*(scores.loc[[pair[side] for pair in pairs]] for side in (0, 1)))

    @property
    def columns(self) -> list[str]:
        """Columns of rewards that are compared."""
        return ["total"]

    def _compared(self, first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
        """Return the comparison of clips, given :attr:`columns` of both."""
        difference = first["total"].to_numpy(dtype=np.float64) - second["total"].to_numpy(dtype=np.float64)
        a, b = difference > NO_DIFFERENCE, difference < -NO_DIFFERENCE
        return pd.DataFrame(
            {
                "p_a": a.astype(float),
                "p_b": b.astype(float),
                "p_tie": (~a & ~b).astype(float),
                "position_bias": 0.0,
                "better": np.where(a, "a", np.where(b, "b", "tie")),
            }
        )
