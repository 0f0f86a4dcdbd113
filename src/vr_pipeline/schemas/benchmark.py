"""Tables of reward_benchmark."""

from typing import Optional

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table

_LABELS = ["a", "b", "tie"]


class BenchmarkPairs(Table):
    """Pairs that people compared, one row per pair and criterion; clips are in the order of their identifiers."""

    pair_id: Series[str]
    source: Series[str] = pa.Field(description="name of the file of preferences")
    criterion: Series[str] = pa.Field(description="'preference' for the overall label")
    prompt_id: Series[str]
    unit: Series[str] = pa.Field(description="prompts that share clips are one unit of intervals")
    video_id_a: Series[str]
    video_id_b: Series[str]
    preference: Series[str] = pa.Field(isin=_LABELS)
    split: Series[str] = pa.Field(isin=["validation", "test"])
    generators: Series[str] = pa.Field(description="generators of the two clips")
    seconds: Series[float] = pa.Field(ge=0, description="mean length of the clips")
    length_gap: Series[float] = pa.Field(description="length of A minus that of B, seconds")
    shown_first: Series[float] = pa.Field(isin=[1.0, -1.0], description="1 if the file lists A first")


class BenchmarkScores(Table):
    """Scores of clips, one row per reward, clip and dimension."""

    reward: Series[str]
    video_id: Series[str]
    dimension: Series[str] = pa.Field(description="a dimension, or 'total'")
    score: Series[float]


class BenchmarkJudgedPairs(BenchmarkPairs):
    """Answer of every reward to every pair."""

    reward: Series[str]
    dimension: Series[str] = pa.Field(description="dimension, comparison or baseline")
    difference: Series[float] = pa.Field(description="A minus B")
    answer: Series[str] = pa.Field(isin=[*_LABELS, ""], description="answer of a model that compares; empty for scores")
    position_bias: Series[float] = pa.Field(ge=-1, le=1)


class BenchmarkFigures(Table):
    """Agreement of a reward with people on the test pairs of a source, criterion and group."""

    reward: Series[str]
    source: Series[str]
    criterion: Series[str]
    dimension: Series[str]
    by: Series[str] = pa.Field(isin=["all", "generators", "length"])
    group: Series[str]
    figures: Optional[Series[float]] = pa.Field(
        alias=r"^(tau|tau_best|diff|three_way_accuracy|kendall)(_low|_high)?$", regex=True, nullable=True, ge=-1, le=1
    )
    threshold: Series[float] = pa.Field(nullable=True, description="of ties, chosen on validation pairs")
    n: Series[int] = pa.Field(ge=1)
    n_ties: Series[int] = pa.Field(ge=0)
    prompts: Series[int] = pa.Field(ge=1)


class BenchmarkDifferences(Table):
    """Paired differences between two rewards in the share of correct answers of three."""

    source: Series[str]
    criterion: Series[str]
    first: Series[str]
    second: Series[str]
    difference: Series[float] = pa.Field(nullable=True)
    ci_low: Series[float] = pa.Field(nullable=True)
    ci_high: Series[float] = pa.Field(nullable=True)
    n: Series[int] = pa.Field(ge=0)
    prompts: Series[int] = pa.Field(ge=0)


class BenchmarkBiases(Table):
    """Bias of people and rewards towards a position or longer clips."""

    source: Series[str]
    who: Series[str] = pa.Field(description="'people' or a reward")
    first_share: Series[float] = pa.Field(nullable=True, ge=0, le=1, description="of answers without tie, people only")
    position_bias: Series[float] = pa.Field(nullable=True, ge=0, le=1)
    length: Series[float] = pa.Field(
        nullable=True, ge=-1, le=1, description="Spearman's correlation with the difference in length"
    )


class BenchmarkLeftOut(Table):
    """Pairs with a clip that could not be read."""

    pair_id: Series[str]
    source: Series[str]
    reason: Series[str]
