"""Pipeline ablation_study."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.ablation_study import nodes
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
from vr_pipeline.pipelines.dpo_training.nodes import encode_latents, encode_prompts
from vr_pipeline.pipelines.evaluation.nodes import consult_oracle
from vr_pipeline.pipelines.video_generation.nodes import index_videos
from vr_pipeline.pipelines.weight_regression.nodes import score_videos


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from rewards to the gains of pair rules and objectives."""
    return Pipeline([*_trainings(), *_comparison()])


def _trainings() -> list[Node]:
    """Select pairs, encode what they need once, and train all policies."""
    settings = ["params:generator", "params:dpo_training"]
    return [
        Node(
            nodes.select_ablation_pairs,
            inputs=["rewards", "filtered_prompts", "video_index", "params:pair_selection", "params:ablation"],
            outputs=["ablation_pairs", "ablation_pair_counts"],
            name="select_ablation_pairs",
        ),
        Node(
            encode_latents,
            inputs=["videos", "ablation_pairs", *settings],
            outputs="ablation_latents",
            name="encode_ablation_latents",
            tags=["gpu"],
        ),
        Node(
            encode_prompts,
            inputs=["ablation_pairs", *settings],
            outputs="ablation_conditions",
            name="encode_ablation_prompts",
            tags=["gpu"],
        ),
        Node(
            nodes.train_ablation_policies,
            inputs=["ablation_pairs", "ablation_latents", "ablation_conditions", *settings, "params:ablation"],
            outputs="ablation_policies",
            name="train_ablation_policies",
            tags=["gpu"],
        ),
        Node(
            nodes.list_ablation_trainings,
            inputs=["ablation_policies", "params:ablation"],
            outputs="ablation_trainings",
            name="list_ablation_trainings",
        ),
    ]


def _comparison() -> list[Node]:
    """Make and judge clips of all policies, and compare them."""
    judging = ["checklist", "params:judge", "params:checklist_inference"]
    return [
        Node(
            nodes.generate_ablation_videos,
            inputs=[
                "filtered_prompts",
                "ablation_policies",
                "params:generator",
                "params:dpo_training",
                "params:ablation",
            ],
            outputs="ablation_videos",
            name="generate_ablation_videos",
            tags=["gpu"],
        ),
        Node(index_videos, inputs="ablation_videos", outputs="ablation_video_index", name="index_ablation_videos"),
        Node(
            plan_checklist_answers,
            inputs=["ablation_videos", "ablation_video_index", *judging],
            outputs="ablation_answer_shards",
            name="answer_checklist_on_ablation",
            tags=["gpu"],
        ),
        Node(
            collect_answers,
            inputs=["ablation_answer_shards", "ablation_video_index", "checklist", "params:checklist_inference"],
            outputs="ablation_answers",
            name="collect_ablation_answers",
        ),
        Node(
            score_videos,
            inputs=["ablation_answers", "ablation_video_index", "checklist", "reward_weights"],
            outputs="ablation_rewards",
            name="score_ablation_videos",
        ),
        Node(
            consult_oracle,
            inputs=["oracle", "ablation_videos", "ablation_video_index", "checklist"],
            outputs=["ablation_oracle_answers", "ablation_oracle_rewards"],
            name="consult_oracle_on_ablation",
        ),
        Node(
            nodes.measure_ablation_gains,
            inputs=["ablation_rewards", "ablation_oracle_rewards", "params:ablation"],
            outputs="ablation_gains",
            name="measure_ablation_gains",
        ),
        Node(
            nodes.summarise_ablation,
            inputs=["ablation_gains", "ablation_pair_counts", "ablation_trainings", "params:ablation"],
            outputs=["ablation_metrics", "ablation_gains_plot", "ablation_report"],
            name="summarise_ablation",
        ),
    ]
