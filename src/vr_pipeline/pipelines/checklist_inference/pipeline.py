"""Pipeline checklist_inference."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.checklist_inference import nodes


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Clips to answers: for the clips to pair, and for the clips people compared."""
    return Pipeline(
        [
            Node(
                nodes.plan_checklist_answers,
                inputs=[
                    "videos",
                    "video_index",
                    "checklist",
                    "params:judge",
                    "params:checklist_inference",
                ],
                outputs="answer_shards",
                name="answer_checklist",
                tags=["gpu"],
            ),
            Node(
                nodes.collect_answers,
                inputs=["answer_shards", "video_index", "checklist", "params:checklist_inference"],
                outputs="checklist_answers",
                name="collect_answers",
            ),
            Node(
                nodes.plan_checklist_answers,
                inputs=[
                    "preference_videos",
                    "preference_video_index",
                    "checklist",
                    "params:judge",
                    "params:checklist_inference",
                ],
                outputs="preference_answer_shards",
                name="answer_checklist_on_preferences",
                tags=["gpu"],
            ),
            Node(
                nodes.collect_answers,
                inputs=[
                    "preference_answer_shards",
                    "preference_video_index",
                    "checklist",
                    "params:checklist_inference",
                ],
                outputs="preference_answers",
                name="collect_preference_answers",
            ),
            Node(
                nodes.summarise_answers,
                inputs=["checklist_answers", "video_index", "preference_answers", "preference_video_index"],
                outputs="checklist_inference_report",
                name="summarise_answers",
            ),
        ]
    )
