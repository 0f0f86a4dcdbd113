"""Tables about guidance by a latent reward."""

import math
from typing import Optional

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table


class GuidanceDrift(Table):
    """Guided clips beside the unguided ones of their prompts and seeds; the policy is the strength of guidance."""

    video_id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    policy: Series[str]
    pixel_drift: Series[float] = pa.Field(ge=0.0, le=1.0, description="root mean square distance, pixels of 0 to 1")
    latent_drift: Series[float] = pa.Field(ge=0.0, lt=math.inf, description="root mean square distance of latents")
    scores: Optional[Series[float]] = pa.Field(
        alias=r"^latent_(?!drift$).+", regex=True, gt=-math.inf, lt=math.inf, description="by the latent reward"
    )
