"""Filter prompts: from scraped prompts to distinct, usable ones in three splits."""

from vr_pipeline.pipelines.prompt_filtering.pipeline import create_pipeline

__all__ = ["create_pipeline"]
