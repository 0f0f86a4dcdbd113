"""Everything the embedded default ships: tiny models, an oracle and simulated preferences."""

from vr_pipeline.pipelines.micro_world.pipeline import create_pipeline

__all__ = ["create_pipeline"]
