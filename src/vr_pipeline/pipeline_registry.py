"""The project's pipelines by name."""

from __future__ import annotations

import importlib
import importlib.util

from kedro.pipeline import Pipeline


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines; modules are imported here and not above, so that commands which run nothing start quickly."""
    names = [
        "micro_world",
        "prompt_filtering",
        "video_generation",
        "checklist_inference",
        "weight_regression",
        "pair_selection",
        "dpo_training",
        "evaluation",
        "judge_training",
    ]
    found = {
        name: importlib.import_module(f"vr_pipeline.pipelines.{name}").create_pipeline()
        for name in names
        if importlib.util.find_spec(f"vr_pipeline.pipelines.{name}")
    }
    mpo_dpo = sum((found[name] for name in names[1:8] if name in found), Pipeline([]))
    return {**found, "mpo_dpo": mpo_dpo, "__default__": mpo_dpo}
