"""Pipeline evaluation."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.evaluation.report.sections import PROVENANCE, SECTIONS
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
from vr_pipeline.pipelines.evaluation import nodes
from vr_pipeline.pipelines.recipes import each
from vr_pipeline.pipelines.video_generation.nodes import index_videos
from vr_pipeline.pipelines.weight_regression.nodes import score_videos


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from policies to clips, rewards, metrics and the report."""
    sections = (*SECTIONS, PROVENANCE)
    return Pipeline(
        [
            Node(
                nodes.generate_evaluation_videos,
                inputs=["filtered_prompts", "params:generator", "params:evaluation", *each("policy")],
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
                inputs=[
                    "evaluation_answer_shards",
                    "evaluation_video_index",
                    "checklist",
                    "params:checklist_inference",
                ],
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
                nodes.consult_oracle,
                inputs=["oracle", "evaluation_videos", "evaluation_video_index", "checklist"],
                outputs=["evaluation_oracle_answers", "evaluation_oracle_rewards"],
                name="consult_oracle",
            ),
            Node(
                nodes.compare_judge_and_oracle,
                inputs=["evaluation_answers", "evaluation_oracle_answers"],
                outputs="judge_oracle_agreement",
                name="compare_judge_and_oracle",
            ),
            Node(
                nodes.compute_evaluation_metrics,
                inputs=[
                    "evaluation_rewards",
                    "evaluation_oracle_rewards",
                    "judge_oracle_agreement",
                    "evaluation_video_index",
                    "reward_agreement",
                    *each("preference_pairs"),
                ],
                outputs="evaluation_metrics",
                name="compute_evaluation_metrics",
            ),
            Node(
                nodes.compare_policies_by_sub_dimension,
                inputs=["evaluation_answers", "evaluation_video_index", "checklist"],
                outputs=["policy_deviations", "policy_deviations_plot"],
                name="compare_policies_by_sub_dimension",
            ),
            Node(
                nodes.draw_evaluation_plots,
                inputs=["evaluation_metrics", *each("training_log")],
                outputs=["rewards_by_dimension_plot", "training_curves_plot"],
                name="draw_evaluation_plots",
            ),
            *(
                Node(
                    nodes.report_section(section),
                    inputs=section.datasets(nodes.NAMES),
                    outputs=f"report_section_{section.name}",
                    name=f"report_{section.name}",
                )
                for section in sections
            ),
            Node(
                nodes.write_report,
                inputs=["params:evaluation", *(f"report_section_{section.name}" for section in sections)],
                outputs="evaluation_report",
                name="write_report",
            ),
        ]
    )
