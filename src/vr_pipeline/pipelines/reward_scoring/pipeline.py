"""reward_scoring: clips -> rewards, by the system's reward."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.reward_scoring.nodes import collect_rewards, describe_reward, plan_scores
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import MPO_DPO, System


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from clips to rewards."""
    return Pipeline(
        [
            step(describe_reward, system.reward_parameters, "reward_description"),
            step(
                plan_scores,
                ["videos", "video_index", system.reward_parameters],
                "reward_shards",
                name="measure_rewards",
                tags=["gpu"],
            ),
            step(collect_rewards, ["reward_shards", "video_index", system.reward_parameters], "rewards"),
        ]
    )
