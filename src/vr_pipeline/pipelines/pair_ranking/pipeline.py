"""pair_ranking: clips -> pair_comparisons, by the reward model of the system."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.pair_ranking import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import UNIFIED_DPO, System
from vr_pipeline.rewards.comparing import collect_comparisons


def create_pipeline(system: System = UNIFIED_DPO, **kwargs: Any) -> Pipeline:
    """Lead from clips to comparisons of pairs."""
    return Pipeline(
        [
            step(
                nodes.rank_pairs,
                ["videos", "video_index", system.reward_parameters, "params:pair_ranking", "params:pair_selection"],
                "comparison_shards",
                tags=["gpu"],
            ),
            step(
                collect_comparisons,
                ["comparison_shards", "video_index"],
                "pair_comparisons",
                name="collect_pair_comparisons",
            ),
            step(nodes.report_pair_ranking, ["pair_comparisons", "comparison_shards"], "pair_ranking_report"),
        ]
    )
