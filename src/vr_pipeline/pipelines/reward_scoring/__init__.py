"""Rewards of clips by any reward of the registry, resumed clip by clip."""

from vr_pipeline.pipelines.reward_scoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
