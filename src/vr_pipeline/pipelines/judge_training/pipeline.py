"""Pipeline judge_training."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.judges.plots import judge_report_figure
from vr_pipeline.pipelines.judge_training import nodes
from vr_pipeline.pipelines.steps import step


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from annotated clips to a judge's folder and a report by question."""
    return Pipeline(
        [
            step(
                nodes.index_judge_training_videos,
                ["judge_training_videos", "judge_annotations"],
                "judge_training_video_index",
            ),
            step(
                nodes.train_judge,
                [
                    "judge_annotations",
                    "judge_training_video_index",
                    "judge_training_videos",
                    "checklist",
                    "params:judge_training",
                ],
                ["trained_judge", "judge_question_report", "judge_training_log", "judge_training_metrics"],
                tags=["gpu", "train"],
            ),
            step(
                judge_report_figure,
                ["judge_question_report", "judge_training_log"],
                "judge_report_figure",
                name="draw_judge_report",
            ),
        ]
    )
