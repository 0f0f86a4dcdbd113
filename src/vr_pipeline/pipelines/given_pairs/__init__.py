"""Pairs that people already have: winners decided, clips fitted to the generator, prompts held out."""

from vr_pipeline.pipelines.given_pairs.pipeline import create_pipeline

__all__ = ["create_pipeline"]
