"""Weights of the checklist's questions from human preferences, their test on held-out prompts, and rewards of clips."""

from vr_pipeline.pipelines.weight_regression.pipeline import create_pipeline

__all__ = ["create_pipeline"]
