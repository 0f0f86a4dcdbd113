"""Training pairs from rewards, for every recipe by its own rule."""

from vr_pipeline.pipelines.pair_selection.pipeline import create_pipeline

__all__ = ["create_pipeline"]
