"""Tables of compared clips, and of pairs to train on."""

from typing import Optional

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table


class Comparisons(Table):
    """Comparisons of two clips of a prompt by a ranker, one row per pair."""

    prompt_id: Series[str]
    video_id_a: Series[str]
    video_id_b: Series[str]
    p_a: Series[float] = pa.Field(ge=0.0, le=1.0, description="probability that A is better; both orders averaged")
    p_b: Series[float] = pa.Field(ge=0.0, le=1.0)
    p_tie: Series[float] = pa.Field(ge=0.0, le=1.0)
    position_bias: Series[float] = pa.Field(
        ge=-1.0, le=1.0, description="p_a with A shown first, minus the mean of both orders"
    )
    outside_mass: Series[float] = pa.Field(ge=0.0, le=1.0, description="probability of all other answers")
    better: Series[str] = pa.Field(isin=["a", "b", "tie"])
    ranker: Series[str] = pa.Field(description="identity of the ranker")

    @pa.dataframe_check(error="a clip is compared with itself")
    @classmethod
    def two_clips(cls, table: pd.DataFrame) -> pd.Series:
        return table["video_id_a"] != table["video_id_b"]


class PreferencePairs(Table):
    """Pairs of clips for training: the winner's total reward is above the loser's."""

    prompt_id: Series[str]
    winner_video_id: Series[str]
    loser_video_id: Series[str]
    margin: Series[float] = pa.Field(gt=0.0)
    dominates: Series[bool]
    gaps: Optional[Series[float]] = pa.Field(alias=r"^dim_.+_gap$", regex=True, nullable=False)

    @pa.dataframe_check(error="a clip is paired with itself")
    @classmethod
    def two_clips(cls, table: pd.DataFrame) -> pd.Series:
        return table["winner_video_id"] != table["loser_video_id"]
