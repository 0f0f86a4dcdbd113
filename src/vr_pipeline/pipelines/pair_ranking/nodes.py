"""Nodes of pair_ranking."""

from typing import Any

import pandas as pd

from vr_pipeline.pairs.config import PairRankingParameters, PairSelectionParameters
from vr_pipeline.pairs.ranking_report import ranking_report
from vr_pipeline.pairs.schedule import scheduled_pairs
from vr_pipeline.rewards.comparing import plan_comparisons
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.rewards.registry import ranker_of
from vr_pipeline.work import WorkPlan


def rank_pairs(
    videos: Any,
    video_index: pd.DataFrame,
    reward_model: RewardModelParameters,
    parameters: PairRankingParameters,
    selection: PairSelectionParameters,
) -> WorkPlan:
    """Compare clips within the groups of pair selection; finished comparisons are not repeated."""
    pairs = scheduled_pairs(video_index, parameters, selection.group_size)
    return plan_comparisons(ranker_of(reward_model.model()), videos, video_index, pairs)


def report_pair_ranking(pair_comparisons: pd.DataFrame, comparison_shards: Any) -> dict[str, Any]:
    """Report numbers and cost of comparisons, ties, position bias, and the mass on other answers."""
    return ranking_report(pair_comparisons, comparison_shards.records)
