"""Nodes of checklist_inference; evaluation uses the same for the clips of policies."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.work import WorkPlan

logger = logging.getLogger(__name__)


def plan_checklist_answers(
    videos: Any,
    video_index: pd.DataFrame,
    checklist: Checklist,
    judge: JudgeParameters,
    parameters: ChecklistInferenceParameters,
) -> WorkPlan:
    """Ask every question of the checklist about every clip; what was answered before is not asked again."""
    from vr_pipeline.judges.answers import plan_answers

    return plan_answers(videos, video_index, checklist, judge, parameters)


def collect_answers(
    answer_shards: Any, video_index: pd.DataFrame, checklist: Checklist, parameters: ChecklistInferenceParameters
) -> pd.DataFrame:
    """Bring all answers into one table, apply the gates, and stop if the judge did not answer with yes or no."""
    from vr_pipeline.judges.answers import check_outside_mass, collect_table, read_shards

    shards = read_shards(answer_shards)
    failed = shards[shards["error"] != ""]
    for row in failed.head(5).itertuples(index=False):
        logger.warning("Clip %s was left out: %s", row.video_id, row.error)
    if len(failed):
        logger.warning("%d of %d clips could not be judged and were left out.", len(failed), len(video_index))
    if len(failed) and len(failed) == len(shards):
        raise InputError(
            f"no clip could be judged; the first reason: {failed['error'].iloc[0]}",
            remedy="Correct what it names, then run again",
        )
    answers = collect_table(shards, video_index, checklist)
    check_outside_mass(answers, parameters.max_median_outside_mass)
    return answers


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
