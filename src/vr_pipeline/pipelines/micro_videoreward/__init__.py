"""The embedded VideoReward: simulated labels by criterion, training from the shipped judge, and a test."""

from vr_pipeline.pipelines.micro_videoreward.pipeline import create_pipeline

__all__ = ["create_pipeline"]
