"""Tables of rewards of noised latents."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table, share


class LatentRewardPairs(Table):
    """Pairs for training and testing a latent reward, with a label in every dimension."""

    pair_id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    prompt: Series[str]
    video_id_a: Series[str]
    video_id_b: Series[str]
    sha256_a: Series[str] = pa.Field(description="hash of the clip's content")
    sha256_b: Series[str]
    unit: Series[str] = pa.Field(description="prompts that must not be split")
    split: Series[str] = pa.Field(isin=["train", "validation", "test"])
    labels: Series[float] = pa.Field(
        alias=r"^label_.+", regex=True, nullable=True, isin=[1.0, 0.0, -1.0], description="1: the first is preferred"
    )


class LatentRewardReport(Table):
    """Share of held-out pairs in the correct order, one row per bin of time and dimension, and 'all'."""

    dimension: Series[str]
    time_from: Series[float] = pa.Field(ge=0.0, le=1.0, description="0 is the clip, 1 noise alone")
    time_to: Series[float] = pa.Field(ge=0.0, le=1.0)
    noise_deviation: Series[float] = pa.Field(ge=0.0, le=1.0, description="of the noise in x_t, mid-bin")
    n: Series[int] = pa.Field(ge=0, description="labels that are not ties")
    prompts: Series[int] = pa.Field(ge=0, description="prompts; those that share clips count as one")
    accuracy: Series[float] = share("correct order of labels that are not ties, one noise for both clips")
    accuracy_low: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, from")
    accuracy_high: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, to")
    accuracy_apart: Series[float] = share("the same with separate noise for each clip")
    accuracy_apart_low: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, from")
    accuracy_apart_high: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, to")
