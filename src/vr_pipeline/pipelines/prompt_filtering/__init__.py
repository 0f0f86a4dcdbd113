"""The pipeline prompt_filtering: from scraped prompts to distinct, usable prompts in three splits."""

from vr_pipeline.pipelines.prompt_filtering.pipeline import create_pipeline

__all__ = ["create_pipeline"]
