"""Train a judge on annotated clips."""

from vr_pipeline.pipelines.judge_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
