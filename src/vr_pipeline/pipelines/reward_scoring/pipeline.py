"""reward_scoring: clips -> rewards, by the reward that the parameters ``reward_model`` name."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.reward_scoring.nodes import collect_rewards, describe_reward, plan_scores


def create_pipeline(**kwargs: Any) -> Pipeline:
    return Pipeline(
        [
            Node(
                describe_reward,
                inputs="params:reward_model",
                outputs="reward_description",
                name="describe_reward",
            ),
            Node(
                plan_scores,
                inputs=["videos", "video_index", "params:reward_model"],
                outputs="reward_shards",
                name="measure_rewards",
                tags=["gpu"],
            ),
            Node(
                collect_rewards,
                inputs=["reward_shards", "video_index", "params:reward_model"],
                outputs="rewards",
                name="collect_rewards",
            ),
        ]
    )
