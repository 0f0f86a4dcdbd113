"""Pipeline online_start."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.checklist_inference.pipeline import create_pipeline as judging_pipeline
from vr_pipeline.pipelines.online_start import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.video_generation.pipeline import create_pipeline as generation_pipeline
from vr_pipeline.pipelines.weight_regression.pipeline import create_pipeline as weight_pipeline


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from preferences to weights without generating clips, and encode the prompts of all rounds."""
    made = generation_pipeline() + judging_pipeline() + weight_pipeline()
    settings = ["params:generator", "params:dpo_training", "params:online_mpo"]
    judging = ["checklist", "reward_weights", "params:judge", "params:checklist_inference"]
    return (made - made.from_nodes("generate_videos")) + Pipeline(
        [
            step(nodes.encode_online_prompts, ["filtered_prompts", *settings], "online_conditions", tags=["gpu"]),
            step(
                nodes.describe_round_reward,
                ["filtered_prompts", *judging],
                "online_checkpoint_reward",
            ),
        ]
    )
