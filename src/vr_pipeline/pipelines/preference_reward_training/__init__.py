"""People's labels of pairs of clips to a VideoReward."""

from vr_pipeline.pipelines.preference_reward_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
