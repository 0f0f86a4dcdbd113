"""Tables of prompts."""

from typing import Optional

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table


class PromptsOnTheirWay(Table):
    """Prompts between two steps of filtering, one row each."""

    prompt_id: Series[str] = pa.Field(unique=True, str_length={"min_value": 1})
    prompt: Series[str] = pa.Field(str_length={"min_value": 1})
    source: Series[str]
    image: Optional[Series[str]] = pa.Field(
        str_matches="^[0-9a-f]{64}:.", description="first frame of the clips: SHA-256 of the file, and its path"
    )


class FilteredPrompts(PromptsOnTheirWay):
    """Prompts that passed filtering, one row each."""

    split: Series[str] = pa.Field(isin=["train", "validation", "test"])


class PromptFilterDecisions(Table):
    """The decision on every prompt that was read, one row each; ``step`` dropped it ('kept' if none did)."""

    prompt_id: Series[str]
    step: Series[str]
    kept: Series[bool]
    reason: Series[str]
    nearest_prompt_id: Series[str] = pa.Field(nullable=True)
    similarity: Series[float] = pa.Field(nullable=True, ge=-1.0, le=1.0 + 1e-6)


class RawPrompts(Table):
    """Prompts of the embedded default."""

    prompt: Series[str] = pa.Field(str_length={"min_value": 1})
    source: Series[str]
