"""Preference training of the generator, once for each recipe."""

from vr_pipeline.pipelines.dpo_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
