"""Make several clips for each prompt, and index the clips that people compared."""

from vr_pipeline.pipelines.video_generation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
