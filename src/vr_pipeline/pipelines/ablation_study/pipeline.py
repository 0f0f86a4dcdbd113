"""Pipeline ablation_study."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.evaluation.ablation.trainings import plan_trainings, training_table
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.ablation_study import nodes
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
from vr_pipeline.pipelines.dpo_training.nodes import encode_latents, encode_prompts
from vr_pipeline.pipelines.evaluation.nodes import consult_oracle
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.weight_regression.nodes import score_videos


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from rewards to the gains of pair rules and objectives."""
    return Pipeline([*_trainings(), *_comparison()])


def _trainings() -> list[Node]:
    """Select pairs, encode their clips and prompts once, and train all policies."""
    settings = ["params:generator", "params:dpo_training"]
    return [
        step(
            nodes.select_ablation_pairs,
            ["rewards", "filtered_prompts", "video_index", "params:pair_selection", "params:ablation"],
            ["ablation_pairs", "ablation_pair_counts"],
        ),
        step(
            encode_latents,
            ["videos", "ablation_pairs", *settings],
            "ablation_latents",
            name="encode_ablation_latents",
            tags=["gpu"],
        ),
        step(
            encode_prompts,
            ["ablation_pairs", *settings],
            "ablation_conditions",
            name="encode_ablation_prompts",
            tags=["gpu"],
        ),
        step(
            plan_trainings,
            ["ablation_pairs", "ablation_latents", "ablation_conditions", *settings, "params:ablation"],
            "ablation_policies",
            name="train_ablation_policies",
            tags=["gpu"],
        ),
        step(
            training_table,
            ["ablation_policies", "params:ablation"],
            "ablation_trainings",
            name="list_ablation_trainings",
        ),
    ]


def _comparison() -> list[Node]:
    """Make and judge clips of all policies, and compare them."""
    judging = ["checklist", "params:judge", "params:checklist_inference"]
    return [
        step(
            nodes.generate_ablation_videos,
            ["filtered_prompts", "ablation_policies", "params:generator", "params:dpo_training", "params:ablation"],
            "ablation_videos",
            tags=["gpu"],
        ),
        step(index_made_clips, "ablation_videos", "ablation_video_index", name="index_ablation_videos"),
        step(
            plan_checklist_answers,
            ["ablation_videos", "ablation_video_index", *judging],
            "ablation_answer_shards",
            name="answer_checklist_on_ablation",
            tags=["gpu"],
        ),
        step(
            collect_answers,
            ["ablation_answer_shards", "ablation_video_index", "checklist", "params:checklist_inference"],
            "ablation_answers",
            name="collect_ablation_answers",
        ),
        step(
            score_videos,
            ["ablation_answers", "ablation_video_index", "checklist", "reward_weights"],
            "ablation_rewards",
            name="score_ablation_videos",
        ),
        step(
            consult_oracle,
            ["oracle", "ablation_videos", "ablation_video_index", "checklist"],
            ["ablation_oracle_answers", "ablation_oracle_rewards"],
            name="consult_oracle_on_ablation",
        ),
        step(
            nodes.measure_ablation_gains,
            ["ablation_rewards", "ablation_oracle_rewards", "params:ablation"],
            "ablation_gains",
        ),
        step(
            nodes.summarise_ablation,
            ["ablation_gains", "ablation_pair_counts", "ablation_trainings", "params:ablation"],
            ["ablation_metrics", "ablation_gains_plot", "ablation_report"],
        ),
    ]
