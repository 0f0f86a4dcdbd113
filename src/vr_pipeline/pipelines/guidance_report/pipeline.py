"""Pipeline guidance_report."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.evaluation.guidance.clips import measure_drift
from vr_pipeline.evaluation.guidance.report import guidance_page
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.evaluation.nodes import consult_oracle
from vr_pipeline.pipelines.guidance_report import nodes
from vr_pipeline.pipelines.reward_scoring.nodes import collect_rewards, plan_scores
from vr_pipeline.pipelines.steps import step


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from a latent reward to a report on its effect as guidance."""
    steered = ["latent_reward", "params:generator", "params:guidance_report"]
    clips = ["guided_videos", "guided_video_index"]
    return Pipeline(
        [
            step(nodes.generate_guided_videos, ["filtered_prompts", *steered], "guided_videos", tags=["gpu"]),
            step(index_made_clips, "guided_videos", "guided_video_index", name="index_guided_videos"),
            step(
                plan_scores,
                [*clips, "params:reward_model"],
                "guided_reward_shards",
                name="measure_guided_rewards",
                tags=["gpu"],
            ),
            step(
                collect_rewards,
                ["guided_reward_shards", "guided_video_index", "params:reward_model"],
                "guided_rewards",
                name="collect_guided_rewards",
            ),
            step(
                consult_oracle,
                ["oracle", *clips, "checklist"],
                ["guided_oracle_answers", "guided_oracle_rewards"],
                name="consult_oracle_on_guidance",
            ),
            step(measure_drift, [*clips, *steered], "guidance_drift", name="measure_guidance_drift", tags=["gpu"]),
            step(
                guidance_page,
                [*clips, "guided_rewards", "guided_oracle_rewards", "guidance_drift", "params:guidance_report"],
                "guidance_report",
                name="write_guidance_report",
            ),
        ]
    )
