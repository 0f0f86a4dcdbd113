"""Make clips of several generators for the same prompts, for people to compare."""

from vr_pipeline.pipelines.preference_generation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
