"""Pipeline evaluation."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.evaluation.report.sections import PROVENANCE, SECTIONS
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
from vr_pipeline.pipelines.evaluation import nodes
from vr_pipeline.pipelines.recipes import each
from vr_pipeline.pipelines.reward_scoring.nodes import collect_rewards, describe_reward, plan_scores
from vr_pipeline.pipelines.systems import MPO_DPO, System
from vr_pipeline.pipelines.video_generation.nodes import index_videos
from vr_pipeline.pipelines.weight_regression.nodes import score_videos


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from policies to clips, rewards, metrics and the report.

    The page has the sections whose inputs this or an earlier stage of the system reads or makes.
    """
    measured = Pipeline([*_clips(system), *(_by_checklist if system.reward == "checklist" else _by_reward)(system)])
    there = measured.datasets() | system.datasets_before("evaluation")
    recipes = [recipe.name for recipe in system.recipes]
    sections = [section for section in (*SECTIONS, PROVENANCE) if section.is_possible(recipes, there)]
    return measured + Pipeline(
        [
            *(
                Node(
                    nodes.report_section(section, there, system.recipes),
                    inputs=section.datasets(recipes, there),
                    outputs=f"report_section_{section.name}",
                    name=f"report_{section.name}",
                )
                for section in sections
            ),
            Node(
                nodes.report_page(sections),
                inputs=["params:evaluation", *(f"report_section_{section.name}" for section in sections)],
                outputs="evaluation_report",
                name="write_report",
            ),
        ]
    )


def _clips(system: System) -> list[Node]:
    """Make the clips, ask the oracle about them, and draw what comes out."""
    return [
        Node(
            system.function(nodes.generate_evaluation_videos),
            inputs=["filtered_prompts", "params:generator", "params:evaluation", *each("policy", system.recipes)],
            outputs="evaluation_videos",
            name="generate_evaluation_videos",
            tags=["gpu"],
        ),
        Node(
            index_videos,
            inputs="evaluation_videos",
            outputs="evaluation_video_index",
            name="index_evaluation_videos",
        ),
        Node(
            nodes.consult_oracle,
            inputs=["oracle", "evaluation_videos", "evaluation_video_index", "checklist"],
            outputs=["evaluation_oracle_answers", "evaluation_oracle_rewards"],
            name="consult_oracle",
        ),
        Node(
            system.function(nodes.draw_evaluation_plots),
            inputs=["evaluation_metrics", *each("training_log", system.recipes)],
            outputs=["rewards_by_dimension_plot", "training_curves_plot"],
            name="draw_evaluation_plots",
        ),
    ]


def _by_checklist(system: System) -> list[Node]:
    """Judge the clips by the checklist, question by question."""
    return [
        Node(
            plan_checklist_answers,
            inputs=[
                "evaluation_videos",
                "evaluation_video_index",
                "checklist",
                "params:judge",
                "params:checklist_inference",
            ],
            outputs="evaluation_answer_shards",
            name="answer_checklist_on_evaluation",
            tags=["gpu"],
        ),
        Node(
            collect_answers,
            inputs=["evaluation_answer_shards", "evaluation_video_index", "checklist", "params:checklist_inference"],
            outputs="evaluation_answers",
            name="collect_evaluation_answers",
        ),
        Node(
            score_videos,
            inputs=["evaluation_answers", "evaluation_video_index", "checklist", "reward_weights"],
            outputs="evaluation_rewards",
            name="score_evaluation_videos",
        ),
        Node(
            nodes.compare_judge_and_oracle,
            inputs=["evaluation_answers", "evaluation_oracle_answers"],
            outputs="judge_oracle_agreement",
            name="compare_judge_and_oracle",
        ),
        Node(
            system.function(nodes.compute_evaluation_metrics),
            inputs=[
                "evaluation_rewards",
                "evaluation_oracle_rewards",
                "judge_oracle_agreement",
                "evaluation_video_index",
                "reward_agreement",
                *_pairs(system),
            ],
            outputs="evaluation_metrics",
            name="compute_evaluation_metrics",
        ),
        Node(
            system.function(nodes.compare_policies_by_sub_dimension),
            inputs=["evaluation_answers", "evaluation_video_index", "checklist"],
            outputs=["policy_deviations", "policy_deviations_plot"],
            name="compare_policies_by_sub_dimension",
        ),
    ]


def _by_reward(system: System) -> list[Node]:
    """Judge the clips by the reward that the parameters name."""
    description = Node(
        describe_reward, inputs="params:reward_model", outputs="reward_description", name="describe_reward"
    )
    return [
        *([] if "reward_scoring" in system.stages else [description]),
        Node(
            plan_scores,
            inputs=["evaluation_videos", "evaluation_video_index", "params:reward_model"],
            outputs="evaluation_reward_shards",
            name="measure_evaluation_rewards",
            tags=["gpu"],
        ),
        Node(
            collect_rewards,
            inputs=["evaluation_reward_shards", "evaluation_video_index", "params:reward_model"],
            outputs="evaluation_rewards",
            name="collect_evaluation_rewards",
        ),
        Node(
            system.function(nodes.compute_reward_metrics),
            inputs=[
                "evaluation_rewards",
                "evaluation_oracle_rewards",
                "evaluation_video_index",
                "reward_description",
                *_pairs(system),
            ],
            outputs="evaluation_metrics",
            name="compute_evaluation_metrics",
        ),
    ]


def _pairs(system: System) -> list[str]:
    """Return the pairs that the system selects; none where they are given."""
    return each("preference_pairs", system.recipes) if system.selects_pairs else []
