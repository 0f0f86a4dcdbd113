"""A judge's answers to every question of the checklist about every clip."""

from vr_pipeline.pipelines.checklist_inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
