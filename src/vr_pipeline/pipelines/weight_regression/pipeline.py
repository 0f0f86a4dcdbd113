"""weight_regression: human preferences and the judge's answers -> reward_weights, their test, and rewards."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.steps import step
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
    """Lead from preferences and answers to weights, agreement, plots and rewards."""
    return Pipeline(
        [
            step(
                label_pairs,
                ["human_preferences", "preference_video_index", "filtered_prompts", "params:weight_regression"],
                ["labelled_pairs", "preference_report", "prompt_overlaps"],
            ),
            step(
                fit_reward_weights,
                ["labelled_pairs", "preference_answers", "checklist", "params:weight_regression"],
                ["reward_weights", "weight_removals"],
            ),
            step(
                measure_agreement,
                ["labelled_pairs", "preference_answers", "checklist", "reward_weights", "params:weight_regression"],
                ["reward_agreement", "pair_scores"],
            ),
            step(
                trace_accuracy_curve,
                ["labelled_pairs", "preference_answers", "checklist", "params:weight_regression"],
                "accuracy_curve",
            ),
            step(
                measure_preference_deviations,
                ["labelled_pairs", "preference_answers", "checklist"],
                "preference_deviations",
            ),
            step(
                draw_weight_plots,
                [
                    "reward_weights",
                    "checklist",
                    "pair_scores",
                    "accuracy_curve",
                    "preference_answers",
                    "preference_deviations",
                ],
                [
                    "reward_weights_plot",
                    "preference_calibration_plot",
                    "accuracy_curve_plot",
                    "question_correlation_plot",
                    "preference_deviations_plot",
                ],
            ),
            step(
                package_reward_model,
                ["reward_weights", "checklist", "params:judge", "params:checklist_inference"],
                "reward_model",
            ),
            step(score_videos, ["checklist_answers", "video_index", "checklist", "reward_weights"], "rewards"),
        ]
    )
