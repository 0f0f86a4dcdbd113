"""Diversity of a prompt's clips as a reward: a policy that exploits a reward often makes clips that look alike."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.contract import Outcome, RewardModel
from vr_pipeline.video.cells import cells, distance
from vr_pipeline.video.sampled import SampledClip, Sampling

SIDE, FRAMES = 8, 4


class DiversityReward(RewardModel):
    """Distance of a clip to the other clips of its prompt, in shares of the range of pixels.

    ``total`` is the mean distance and ``dim_nearest`` that to the most similar clip; it is near 0 for duplicates.
    """

    Settings = Parameters
    kind = "cells"
    dimensions = ("nearest",)

    @property
    def measured_by(self) -> tuple[str, ...]:
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        return ("cells 1", str(SIDE), str(FRAMES))

    def sampling(self, loaded: None) -> Sampling:
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        return Sampling(FRAMES)

    def look(self, loaded: None, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Reduce clips to cells, one column each."""
        reduced = [cells(clip.frames, side=SIDE, times=FRAMES).ravel() for clip in clips]
        return [pd.DataFrame([values], columns=[f"cell_{i}" for i in range(values.size)]) for values in reduced]

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Compare the clips of each prompt.

        Raises:
            InputError: a prompt has one clip only.
        """
        names = [name for name in measured if str(name).startswith("cell_")]
        clips = dict(zip(measured["video_id"], measured[names].to_numpy(dtype=np.float64), strict=True))
        groups = [name for name in ("policy", "prompt_id") if name in index]
        distances = {}
        for prompt, part in index[index["video_id"].isin(set(clips))].groupby(groups, sort=True):
            own = part["video_id"].tolist()
            if len(own) < 2:
                raise InputError(
                    f"prompt '{prompt[-1]}' has one clip, so that its diversity cannot be measured",
                    remedy="Make two or more clips for each prompt",
                    field="videos_per_prompt",
                )
            for clip in own:
                distances[clip] = [distance(clips[clip], clips[other]) for other in own if other != clip]
        rows = [{"video_id": clip, "total": np.mean(d), "dim_nearest": min(d)} for clip, d in distances.items()]
        return super().rewards(pd.DataFrame(rows, columns=["video_id", "total", "dim_nearest"]), index)
