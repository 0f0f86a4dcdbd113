"""Nodes of judge_training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.engine.groups import launched_processes
from vr_pipeline.items.video_index import index_given_clips, index_made_clips
from vr_pipeline.judges.training.annotations import collect_examples
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.task import TrainedJudge
from vr_pipeline.judges.training.task import train_judge as train
from vr_pipeline.runtime.live_curves import write_row


def index_judge_training_videos(judge_training_videos: Any, judge_annotations: pd.DataFrame) -> pd.DataFrame:
    """List the annotated clips, generated or from a folder, with their prompts."""
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
    # Before reading clips and loading a model.
    parameters.check_processes(launched_processes())
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
