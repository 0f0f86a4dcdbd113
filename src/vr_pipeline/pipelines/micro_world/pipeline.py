"""Pipeline micro_world."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines import judge_training, micro_videoreward
from vr_pipeline.pipelines.micro_world import nodes


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from renderer to tiny models, oracle and simulated preferences.

    judge_training trains the judge, and micro_videoreward the VideoReward that starts from it.
    """
    return Pipeline(
        [
            Node(nodes.write_prompts, inputs=None, outputs="micro_prompts", name="write_prompts"),
            Node(
                nodes.pretrain_micro_generator,
                inputs=["params:generator", "params:micro_world"],
                outputs=["micro_generator", "micro_pretraining_log"],
                name="pretrain_micro_generator",
                tags=["gpu", "train"],
            ),
            Node(
                nodes.fit_oracle,
                inputs=["micro_generator", "params:generator", "params:micro_world"],
                outputs="oracle",
                name="fit_oracle",
                tags=["gpu"],
            ),
            Node(
                nodes.prepare_judge_clips,
                inputs=["micro_generator", "oracle", "checklist", "params:generator", "params:micro_world"],
                outputs=["judge_training_videos", "judge_annotations"],
                name="prepare_judge_clips",
                tags=["gpu"],
            ),
            *judge_training.create_pipeline().nodes,
            Node(
                nodes.write_model_card,
                inputs=[
                    "micro_generator",
                    "oracle",
                    "trained_judge",
                    "judge_question_report",
                    "checklist",
                    "params:micro_world",
                ],
                outputs="micro_model_card",
                name="write_model_card",
            ),
            Node(
                nodes.simulate_human_preferences,
                inputs=["micro_generator", "oracle", "checklist", "params:generator", "params:micro_world"],
                outputs=["micro_preference_videos", "micro_preference_clips", "micro_human_preferences"],
                name="simulate_human_preferences",
                tags=["gpu"],
            ),
            *micro_videoreward.create_pipeline().nodes,
        ]
    )
