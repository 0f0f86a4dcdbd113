"""Nodes of judge_training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.task import TrainedJudge


def index_judge_training_videos(judge_training_videos: Any, judge_annotations: pd.DataFrame) -> pd.DataFrame:
    """List the annotated clips with the prompts they are judged against: clips made here, or a folder of given ones."""
    from vr_pipeline.items.video_index import index_given_clips, index_made_clips

    if not isinstance(judge_training_videos, Mapping):
        return index_made_clips(judge_training_videos)
    clips = judge_annotations.drop_duplicates("video_id")
    return index_given_clips(clips, judge_training_videos, source="judge_annotations")


def train_judge(
    judge_annotations: pd.DataFrame,
    judge_training_video_index: pd.DataFrame,
    judge_training_videos: Any,
    checklist: Checklist,
    parameters: JudgeTrainingParameters,
) -> tuple[TrainedJudge, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train a judge on annotated clips and test it on held-out ones, question by question."""
    from vr_pipeline.engine.groups import launched_processes
    from vr_pipeline.judges.training.annotations import collect_examples
    from vr_pipeline.judges.training.task import check_processes
    from vr_pipeline.judges.training.task import train_judge as train
    from vr_pipeline.runtime.live_curves import write_row

    # Before clips are read and a model is loaded.
    check_processes(parameters, launched_processes())
    examples = collect_examples(
        judge_annotations,
        judge_training_video_index,
        judge_training_videos,
        num_frames=parameters.num_frames,
        frames_per_second=parameters.frames_per_second,
        memory_mb=parameters.memory_mb,
    )
    judge = train(examples, checklist, parameters, observe=write_row)
    return judge, judge.report, judge.log, judge.summary


def draw_judge_report(judge_question_report: pd.DataFrame, judge_training_log: pd.DataFrame) -> Figure:
    """Show balanced accuracy by question, calibration and the course of training."""
    from vr_pipeline.judges.plots import judge_report_figure

    return judge_report_figure(judge_question_report, judge_training_log)
