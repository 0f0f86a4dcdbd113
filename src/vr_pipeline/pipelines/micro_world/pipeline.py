"""Pipeline micro_world."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.micro_world.build import fit_auditor, pretrain, pretrain_flow
from vr_pipeline.pipelines.judge_training import pipeline as judge_training
from vr_pipeline.pipelines.micro_unifiedreward import pipeline as micro_unifiedreward
from vr_pipeline.pipelines.micro_videoreward import pipeline as micro_videoreward
from vr_pipeline.pipelines.micro_world import nodes
from vr_pipeline.pipelines.steps import step


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from renderer to tiny models, oracle, auditor and simulated preferences.

    judge_training trains the judge, and micro_videoreward and micro_unifiedreward the rewards that start from it.
    """
    return Pipeline(
        [
            step(nodes.write_prompts, None, "micro_prompts"),
            step(
                pretrain,
                ["params:generator", "params:micro_world"],
                ["micro_generator", "micro_pretraining_log"],
                name="pretrain_micro_generator",
                tags=["gpu", "train"],
            ),
            step(
                nodes.fit_oracle, ["micro_generator", "params:generator", "params:micro_world"], "oracle", tags=["gpu"]
            ),
            step(fit_auditor, "params:micro_world", "auditor"),
            step(
                nodes.prepare_judge_clips,
                ["micro_generator", "oracle", "checklist", "params:generator", "params:micro_world"],
                ["judge_training_videos", "judge_annotations"],
                tags=["gpu"],
            ),
            *Pipeline(judge_training.create_pipeline(), outputs={"trained_judge": "micro_judge"}).nodes,
            step(
                nodes.write_model_card,
                [
                    "micro_generator",
                    "micro_judge",
                    "judge_question_report",
                    "checklist",
                    "params:micro_world",
                    "oracle",
                    "auditor",
                ],
                "micro_model_card",
            ),
            step(
                nodes.simulate_human_preferences,
                ["micro_generator", "oracle", "checklist", "params:generator", "params:micro_world"],
                ["micro_preference_videos", "micro_preference_clips", "micro_human_preferences"],
                tags=["gpu"],
            ),
            step(nodes.ask_for_captions, "params:micro_world", ["micro_caption_videos", "micro_caption_questions"]),
            *micro_videoreward.create_pipeline().nodes,
            step(
                pretrain_flow,
                ["params:generator", "params:micro_world"],
                ["micro_flow_generator", "micro_flow_pretraining_log"],
                name="pretrain_flow_generator",
                tags=["gpu", "train"],
            ),
            step(
                nodes.write_flow_card,
                ["micro_flow_generator", "micro_generator", "oracle", "params:generator", "params:micro_world"],
                "micro_flow_card",
                tags=["gpu"],
            ),
            *micro_unifiedreward.create_pipeline().nodes,
        ]
    )
