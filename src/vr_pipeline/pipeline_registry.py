"""The project's pipelines by name."""

from __future__ import annotations

from importlib import import_module

from kedro.pipeline import Pipeline

STAGES = (
    "prompt_filtering",
    "video_generation",
    "checklist_inference",
    "weight_regression",
    "pair_selection",
    "dpo_training",
    "evaluation",
)
"""The method, from prompts to compared policies."""


def register_pipelines() -> dict[str, Pipeline]:
    """Make all pipelines; modules are imported here and not above, so that commands which run nothing start quickly."""
    from vr_pipeline.viz.pipelines import pictured

    pipelines = {name: _stage(name) for name in ("micro_world", "judge_training", *STAGES)}
    pipelines["mpo_dpo"] = pipelines["__default__"] = sum((pipelines[name] for name in STAGES), Pipeline([]))
    return {name: pictured(pipeline) for name, pipeline in pipelines.items()}


def _stage(name: str) -> Pipeline:
    """Make the pipeline of a package a group that can be folded in the picture; datasets keep their names."""
    made = import_module(f"vr_pipeline.pipelines.{name}").create_pipeline()
    return Pipeline(made, namespace=name, prefix_datasets_with_namespace=False)
