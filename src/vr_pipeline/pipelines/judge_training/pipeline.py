"""Pipeline judge_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.judge_training import nodes


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Annotated clips to a judge's folder and a report a question."""
    return Pipeline(
        [
            Node(
                nodes.index_judge_training_videos,
                inputs=["judge_training_videos", "judge_annotations"],
                outputs="judge_training_video_index",
                name="index_judge_training_videos",
            ),
            Node(
                nodes.train_judge,
                inputs=[
                    "judge_annotations",
                    "judge_training_video_index",
                    "judge_training_videos",
                    "checklist",
                    "params:judge_training",
                ],
                outputs=["trained_judge", "judge_question_report", "judge_training_log", "judge_training_metrics"],
                name="train_judge",
                tags=["gpu", "train"],
            ),
            Node(
                nodes.draw_judge_report,
                inputs=["judge_question_report", "judge_training_log"],
                outputs="judge_report_figure",
                name="draw_judge_report",
            ),
        ]
    )
