"""A table of existing scores as a reward: from another model, a suite, or people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import same_name
from vr_pipeline.rewards.contract import Outcome, RewardModel
from vr_pipeline.storage.scores import read_scores
from vr_pipeline.video.sampled import SampledClip, Sampling


class ScoresSettings(Parameters):
    """A file of scores."""

    path: str = Field(description="CSV or Parquet file with the columns video_id (or file name), dimension and score.")
    total: str | None = Field(
        None, description="Dimension whose score is the total; null for the sum of all dimensions."
    )


class ScoresReward(RewardModel):
    """Rewards from a table, without a model or reading clips.

    Args:
        scores: video_id -> dimension -> score; every clip has every dimension.
        total: dimension whose score is the total; None for their sum.
        source: their file, for messages.
    """

    Settings = ScoresSettings
    kind = "scores"

    def __init__(self, scores: Mapping[str, Mapping[str, float]], total: str | None = None, source: str = "") -> None:
        self.scores, self.total, self.source = scores, total, source
        names = list(dict.fromkeys(name for of_clip in scores.values() for name in of_clip))
        if total is not None and total not in names:
            raise InputError(
                f"the table has no dimension '{total}'",
                remedy=f"Name one of {', '.join(names)}",
                file=source,
                field="total",
            )
        self.dimensions = tuple(name for name in names if name != total)
        self._names = names

    @classmethod
    def from_settings(cls, settings: ScoresSettings, folder: Path) -> ScoresReward:
        place = folder / settings.path
        scores: dict[str, dict[str, float]] = {}
        for (video, dimension), score in read_scores(place, ("video_id", "dimension")).items():
            scores.setdefault(video, {})[dimension] = score
        return cls(scores, settings.total, str(place))

    @property
    def measured_by(self) -> tuple[str, ...]:
        rows = sorted((name, key, repr(value)) for name, one in self.scores.items() for key, value in one.items())
        return ("table of scores", str(self.total), *(part for row in rows for part in row))

    def sampling(self, loaded: None) -> Sampling | None:
        """Read no frames."""
        return None

    def look(self, loaded: None, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Look clips up.

        Raises:
            InputError: scores are missing; names them.
        """
        missing = [
            f"'{clip.video_id}' ({name})"
            for clip in clips
            for name in self._names
            if name not in self.scores.get(same_name(clip.video_id), {})
        ]
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise InputError(
                f"{len(missing)} scores are missing: {shown}",
                remedy="Add them to the table, one row per clip and dimension",
                file=self.source,
                field="video_id",
            )
        return [self._row(self.scores[same_name(clip.video_id)]) for clip in clips]

    def _row(self, scores: Mapping[str, float]) -> pd.DataFrame:
        values = {f"dim_{name}": scores[name] for name in self.dimensions}
        total = math.fsum(values.values()) if self.total is None else scores[self.total]
        return pd.DataFrame([{"total": total, **values}])
