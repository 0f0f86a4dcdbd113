"""Pair rules times objectives, several seeds each, at equal numbers of pairs."""

from vr_pipeline.pipelines.ablation_study.pipeline import create_pipeline

__all__ = ["create_pipeline"]
