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

    stages = {
        "prompt_filtering": prompt_filtering.create_pipeline(),
        "video_generation": video_generation.create_pipeline(),
        "checklist_inference": checklist_inference.create_pipeline(),
        "weight_regression": weight_regression.create_pipeline(),
        "pair_selection": pair_selection.create_pipeline(),
        "dpo_training": dpo_training.create_pipeline(),
        "evaluation": evaluation.create_pipeline(),
    }
    mpo_dpo = sum(stages.values(), Pipeline([]))
    return {
        "micro_world": micro_world.create_pipeline(),
        "judge_training": judge_training.create_pipeline(),
        **stages,
        "mpo_dpo": mpo_dpo,
        "__default__": mpo_dpo,
    }
