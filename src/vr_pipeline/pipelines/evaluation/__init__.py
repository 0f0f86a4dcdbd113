"""Policies compared on held-out prompts, by the judge and by an oracle where one exists."""

from vr_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
