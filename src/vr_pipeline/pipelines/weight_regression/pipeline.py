"""weight_regression: human preferences and the judge's answers -> reward_weights, their test, and rewards."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.weight_regression.nodes import (
    draw_weight_plots,
    fit_reward_weights,
    label_pairs,
    measure_agreement,
    measure_preference_deviations,
    package_reward_model,
    score_videos,
    trace_accuracy_curve,
)


def create_pipeline(**kwargs: Any) -> Pipeline:
    return Pipeline(
        [
            Node(
                label_pairs,
                inputs=["human_preferences", "preference_video_index", "params:weight_regression"],
                outputs=["labelled_pairs", "preference_report"],
                name="label_pairs",
            ),
            Node(
                fit_reward_weights,
                inputs=["labelled_pairs", "preference_answers", "checklist", "params:weight_regression"],
                outputs=["reward_weights", "weight_removals"],
                name="fit_reward_weights",
            ),
            Node(
                measure_agreement,
                inputs=[
                    "labelled_pairs",
                    "preference_answers",
                    "checklist",
                    "reward_weights",
                    "params:weight_regression",
                ],
                outputs=["reward_agreement", "pair_scores"],
                name="measure_agreement",
            ),
            Node(
                trace_accuracy_curve,
                inputs=["labelled_pairs", "preference_answers", "checklist", "params:weight_regression"],
                outputs="accuracy_curve",
                name="trace_accuracy_curve",
            ),
            Node(
                measure_preference_deviations,
                inputs=["labelled_pairs", "preference_answers", "checklist"],
                outputs="preference_deviations",
                name="measure_preference_deviations",
            ),
            Node(
                draw_weight_plots,
                inputs=[
                    "reward_weights",
                    "checklist",
                    "pair_scores",
                    "accuracy_curve",
                    "preference_answers",
                    "preference_deviations",
                ],
                outputs=[
                    "reward_weights_plot",
                    "preference_calibration_plot",
                    "accuracy_curve_plot",
                    "question_correlation_plot",
                    "preference_deviations_plot",
                ],
                name="draw_weight_plots",
            ),
            Node(
                package_reward_model,
                inputs=["reward_weights", "checklist", "params:judge", "params:checklist_inference"],
                outputs="reward_model",
                name="package_reward_model",
            ),
            Node(
                score_videos,
                inputs=["checklist_answers", "video_index", "checklist", "reward_weights"],
                outputs="rewards",
                name="score_videos",
            ),
        ]
    )
