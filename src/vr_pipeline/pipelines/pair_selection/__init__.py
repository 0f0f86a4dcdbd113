"""Training pairs from rewards, by dominance in every dimension (mpo) and by total reward (dpo)."""

from vr_pipeline.pipelines.pair_selection.pipeline import create_pipeline

__all__ = ["create_pipeline"]
