"""Nodes of checklist_inference; evaluation uses the same for the clips of policies."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.work import WorkPlan


def plan_checklist_answers(
    videos: Any,
    video_index: pd.DataFrame,
    checklist: Checklist,
    judge: JudgeParameters,
    parameters: ChecklistInferenceParameters,
) -> WorkPlan:
    """Ask every question of the checklist about every clip; what was answered before is not asked again."""
    from vr_pipeline.rewards.checklist.model import ChecklistReward

    return ChecklistReward(checklist, judge=judge, judging=parameters).measure(videos, video_index)


def collect_answers(
    answer_shards: Any, video_index: pd.DataFrame, checklist: Checklist, parameters: ChecklistInferenceParameters
) -> pd.DataFrame:
    """Bring all answers into one table, apply the gates, and stop if the judge did not answer with yes or no."""
    from vr_pipeline.rewards.checklist.model import ChecklistReward

    return ChecklistReward(checklist, judging=parameters).collect(answer_shards, video_index)


def summarise_answers(
    checklist_answers: pd.DataFrame,
    video_index: pd.DataFrame,
    preference_answers: pd.DataFrame,
    preference_video_index: pd.DataFrame,
) -> dict[str, Any]:
    """Count what was judged and what was left out, with the share of yes of each question."""
    from vr_pipeline.judges.answers import summarise

    return {
        "generated": summarise(checklist_answers, video_index),
        "preferences": summarise(preference_answers, preference_video_index),
    }
