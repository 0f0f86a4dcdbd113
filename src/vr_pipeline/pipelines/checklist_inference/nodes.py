"""Nodes of checklist_inference; evaluation uses them for the clips of policies."""

from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.judges.answers import summarise
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.schemas.parts import TableParts
from vr_pipeline.vlm.config import ChecklistJudgeParameters
from vr_pipeline.work import WorkPlan


def plan_checklist_answers(
    videos: Any,
    video_index: pd.DataFrame,
    checklist: Checklist,
    judge: ChecklistJudgeParameters,
    parameters: ChecklistInferenceParameters,
) -> WorkPlan:
    """Ask every question of the checklist about every clip; answered questions are not asked again."""
    return ChecklistReward(checklist, judge=judge, judging=parameters).measure(videos, video_index)


def plan_answers_of_trained_judge(
    videos: Any,
    video_index: pd.DataFrame,
    checklist: Checklist,
    judge: ChecklistJudgeParameters,
    parameters: ChecklistInferenceParameters,
    trained_judge: str,
) -> WorkPlan:
    """Ask every question about every clip after the judge is trained; answered questions are not asked again."""
    # hooks/trained_models.py rejects a run whose parameters name another judge than the trained one.
    return plan_checklist_answers(videos, video_index, checklist, judge, parameters)


def collect_answers(
    answer_shards: Any, video_index: pd.DataFrame, checklist: Checklist, parameters: ChecklistInferenceParameters
) -> pd.DataFrame:
    """Collect all answers in one table, apply the gates, and stop if the judge answered neither yes nor no."""
    return ChecklistReward(checklist, judging=parameters).collect(answer_shards, video_index)


def collect_answers_in_parts(
    answer_shards: Any, video_index: pd.DataFrame, checklist: Checklist, parameters: ChecklistInferenceParameters
) -> TableParts:
    """Do the same for answers that need not fit in memory: they are read while the table is saved."""
    return ChecklistReward(checklist, judging=parameters).collect_parts(answer_shards, video_index)


def summarise_answers(
    checklist_answers: pd.DataFrame | TableParts,
    video_index: pd.DataFrame,
    preference_answers: pd.DataFrame,
    preference_video_index: pd.DataFrame,
) -> dict[str, Any]:
    """Count judged and failed clips, with the share of yes of each question."""
    return {
        "generated": summarise(checklist_answers, video_index),
        "preferences": summarise(preference_answers, preference_video_index),
    }
