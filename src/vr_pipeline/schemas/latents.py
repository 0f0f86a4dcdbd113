"""Tables of rewards of noised latents."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table, share


class LatentRewardPairs(Table):
    """Pairs on which a latent reward is trained and tested, with a label in every dimension."""

    pair_id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    prompt: Series[str]
    video_id_a: Series[str]
    video_id_b: Series[str]
    sha256_a: Series[str] = pa.Field(description="hash of what the clip shows")
    sha256_b: Series[str]
    unit: Series[str] = pa.Field(description="prompts that are on one side of the split together")
    split: Series[str] = pa.Field(isin=["train", "validation", "test"])
    labels: Series[float] = pa.Field(
        alias=r"^label_.+", regex=True, nullable=True, isin=[1.0, 0.0, -1.0], description="1: the first is preferred"
    )


class LatentRewardReport(Table):
    """How often a latent reward orders held-out pairs rightly: a row a bin of time and dimension, and 'all'."""

    dimension: Series[str]
    time_from: Series[float] = pa.Field(ge=0.0, le=1.0, description="0 is the clip, 1 noise alone")
    time_to: Series[float] = pa.Field(ge=0.0, le=1.0)
    noise_deviation: Series[float] = pa.Field(ge=0.0, le=1.0, description="of the noise in x_t, mid-bin")
    n: Series[int] = pa.Field(ge=0, description="labels that are no ties")
    prompts: Series[int] = pa.Field(ge=0, description="prompts, those that share clips taken together")
    accuracy: Series[float] = share("share of labels that are no ties in the right order, one noise for both clips")
    accuracy_low: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, from")
    accuracy_high: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, to")
    accuracy_apart: Series[float] = share("the same with a noise for each clip")
    accuracy_apart_low: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, from")
    accuracy_apart_high: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, to")
