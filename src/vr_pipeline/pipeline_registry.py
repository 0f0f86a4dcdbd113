"""The project's pipelines by name."""

from __future__ import annotations

from kedro.pipeline import Pipeline


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines; modules are imported here and not above, so that commands which run nothing start quickly."""
    from vr_pipeline.pipelines import (
        checklist_inference,
        dpo_training,
        evaluation,
        judge_training,
        micro_world,
        pair_selection,
        prompt_filtering,
        video_generation,
        weight_regression,
    )
    from vr_pipeline.viz.pipelines import pictured

    stages = {
        "prompt_filtering": _group("prompt_filtering", prompt_filtering.create_pipeline()),
        "video_generation": _group("video_generation", video_generation.create_pipeline()),
        "checklist_inference": _group("checklist_inference", checklist_inference.create_pipeline()),
        "weight_regression": _group("weight_regression", weight_regression.create_pipeline()),
        "pair_selection": _group("pair_selection", pair_selection.create_pipeline()),
        "dpo_training": _group("dpo_training", dpo_training.create_pipeline()),
        "evaluation": _group("evaluation", evaluation.create_pipeline()),
    }
    mpo_dpo = sum(stages.values(), Pipeline([]))
    pipelines = {
        "micro_world": _group("micro_world", micro_world.create_pipeline()),
        "judge_training": _group("judge_training", judge_training.create_pipeline()),
        **stages,
        "mpo_dpo": mpo_dpo,
        "__default__": mpo_dpo,
    }
    return {name: pictured(pipeline) for name, pipeline in pipelines.items()}


def _group(name: str, pipeline: Pipeline) -> Pipeline:
    """Make a pipeline a group that can be folded in the picture; datasets keep their names."""
    return Pipeline(pipeline, namespace=name, prefix_datasets_with_namespace=False)
