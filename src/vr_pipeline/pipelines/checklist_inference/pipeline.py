"""Pipeline checklist_inference."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.checklist_inference import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import MPO_DPO, System


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from clips to answers, both for generated clips and for clips that people compared."""
    waits = "judge_training" in system.stages
    plan = nodes.plan_answers_of_trained_judge if waits else nodes.plan_checklist_answers
    judging = ["checklist", "params:judge", "params:checklist_inference", *(["trained_judge"] if waits else [])]
    return Pipeline(
        [
            step(
                plan,
                ["videos", "video_index", *judging],
                "answer_shards",
                name="answer_checklist",
                tags=["gpu"],
            ),
            step(
                nodes.collect_answers_in_parts,
                ["answer_shards", "video_index", "checklist", "params:checklist_inference"],
                "checklist_answers",
                name="collect_answers",
            ),
            step(
                plan,
                ["preference_videos", "preference_video_index", *judging],
                "preference_answer_shards",
                name="answer_checklist_on_preferences",
                tags=["gpu"],
            ),
            step(
                nodes.collect_answers,
                ["preference_answer_shards", "preference_video_index", "checklist", "params:checklist_inference"],
                "preference_answers",
                name="collect_preference_answers",
            ),
            step(
                nodes.summarise_answers,
                ["checklist_answers", "video_index", "preference_answers", "preference_video_index"],
                "checklist_inference_report",
            ),
        ]
    )
