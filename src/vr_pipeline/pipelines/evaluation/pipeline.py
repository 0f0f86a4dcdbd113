"""Pipeline evaluation."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.evaluation.metrics import headline_figures, judge_oracle_agreement
from vr_pipeline.evaluation.report.sections import PROVENANCE, SECTIONS
from vr_pipeline.evaluation.spread import measure_spread
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
from vr_pipeline.pipelines.evaluation import nodes
from vr_pipeline.pipelines.recipes import each
from vr_pipeline.pipelines.reward_scoring.nodes import collect_rewards, describe_reward, plan_scores
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import MPO_DPO, System
from vr_pipeline.pipelines.weight_regression.nodes import score_videos

_GIVEN = {"suite_scores"}
"""Datasets that no pipeline makes; the catalog has their paths, or declares them missing."""


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from policies to clips, rewards, metrics and the report.

    The report has the sections whose inputs exist in this or an earlier stage of the system.
    """
    measured = Pipeline([*_clips(system), *(_by_checklist if system.reward == "checklist" else _by_reward)(system)])
    there = measured.datasets() | system.datasets_before("evaluation") | _GIVEN
    recipes = [recipe.name for recipe in system.recipes]
    sections = [section for section in (*SECTIONS, PROVENANCE) if section.is_possible(recipes, there)]
    return measured + Pipeline(
        [
            *(
                step(
                    nodes.report_section(section, there, system.recipes),
                    section.datasets(recipes, there),
                    f"report_section_{section.name}",
                    name=f"report_{section.name}",
                )
                for section in sections
            ),
            step(
                nodes.report_page(sections),
                ["params:evaluation", *(f"report_section_{section.name}" for section in sections)],
                "evaluation_report",
                name="write_report",
            ),
        ]
    )


def _clips(system: System) -> list[Node]:
    """Make the clips, ask oracle and auditor about them, and draw the results."""
    return [
        step(
            system.function(nodes.generate_evaluation_videos),
            ["filtered_prompts", "params:generator", "params:evaluation", *each("policy", system.recipes)],
            "evaluation_videos",
            tags=["gpu"],
        ),
        step(index_made_clips, "evaluation_videos", "evaluation_video_index", name="index_evaluation_videos"),
        step(
            nodes.consult_oracle,
            ["oracle", "evaluation_videos", "evaluation_video_index", "checklist"],
            ["evaluation_oracle_answers", "evaluation_oracle_rewards"],
        ),
        step(
            nodes.consult_auditor,
            ["auditor", "evaluation_videos", "evaluation_video_index", "checklist"],
            "evaluation_auditor_rewards",
        ),
        *(
            [
                step(
                    system.function(nodes.audit_pairs),
                    ["auditor", "videos", "video_index", "checklist", *each("preference_pairs", system.recipes)],
                    "pair_audit",
                )
            ]
            if system.selects_pairs
            else []
        ),
        step(
            measure_spread, ["evaluation_videos", "evaluation_video_index"], "clip_spread", name="measure_clip_spread"
        ),
        step(headline_figures, "evaluation_metrics", "headline_figures", name="collect_headline_figures"),
        step(
            system.function(nodes.draw_evaluation_plots),
            ["evaluation_metrics", *each("training_log", system.recipes)],
            ["rewards_by_dimension_plot", "training_curves_plot"],
        ),
    ]


def _by_checklist(system: System) -> list[Node]:
    """Judge the clips by the checklist, question by question."""
    return [
        step(
            plan_checklist_answers,
            ["evaluation_videos", "evaluation_video_index", "checklist", "params:judge", "params:checklist_inference"],
            "evaluation_answer_shards",
            name="answer_checklist_on_evaluation",
            tags=["gpu"],
        ),
        step(
            collect_answers,
            ["evaluation_answer_shards", "evaluation_video_index", "checklist", "params:checklist_inference"],
            "evaluation_answers",
            name="collect_evaluation_answers",
        ),
        step(
            score_videos,
            ["evaluation_answers", "evaluation_video_index", "checklist", "reward_weights"],
            "evaluation_rewards",
            name="score_evaluation_videos",
        ),
        step(
            judge_oracle_agreement,
            ["evaluation_answers", "evaluation_oracle_answers"],
            "judge_oracle_agreement",
            name="compare_judge_and_oracle",
        ),
        step(
            system.function(nodes.compute_evaluation_metrics),
            [
                "evaluation_rewards",
                "evaluation_oracle_rewards",
                "judge_oracle_agreement",
                "evaluation_video_index",
                "reward_agreement",
                "evaluation_auditor_rewards",
                *_pairs(system),
            ],
            "evaluation_metrics",
        ),
        step(
            system.function(nodes.compare_policies_by_sub_dimension),
            ["evaluation_answers", "evaluation_video_index", "checklist"],
            ["policy_deviations", "policy_deviations_plot"],
        ),
    ]


def _by_reward(system: System) -> list[Node]:
    """Judge the clips by the named reward."""
    description = step(describe_reward, system.reward_parameters, "reward_description")
    return [
        *([] if "reward_scoring" in system.stages else [description]),
        step(
            plan_scores,
            ["evaluation_videos", "evaluation_video_index", system.reward_parameters],
            "evaluation_reward_shards",
            name="measure_evaluation_rewards",
            tags=["gpu"],
        ),
        step(
            collect_rewards,
            ["evaluation_reward_shards", "evaluation_video_index", system.reward_parameters],
            "evaluation_rewards",
            name="collect_evaluation_rewards",
        ),
        step(
            system.function(nodes.compute_reward_metrics),
            [
                "evaluation_rewards",
                "evaluation_oracle_rewards",
                "evaluation_auditor_rewards",
                "evaluation_video_index",
                "reward_description",
                *_pairs(system),
            ],
            "evaluation_metrics",
            name="compute_evaluation_metrics",
        ),
    ]


def _pairs(system: System) -> list[str]:
    """Return the datasets of selected pairs, after their audit; none if pairs are given."""
    return ["pair_audit", *each("preference_pairs", system.recipes)] if system.selects_pairs else []
