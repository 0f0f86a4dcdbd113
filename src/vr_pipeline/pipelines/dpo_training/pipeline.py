"""Pipeline dpo_training."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.dpo_training import nodes
from vr_pipeline.pipelines.given_pairs.nodes import encode_given_latents
from vr_pipeline.pipelines.recipes import each
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import MPO_DPO, System


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from pairs and clips to one policy per recipe."""
    settings = ["params:generator", "params:dpo_training"]
    shared = [
        *(_selected_pairs(system, settings) if system.selects_pairs else _given_pairs(settings)),
        step(nodes.encode_prompts, ["training_pairs", *settings], "prompt_conditions", tags=["gpu"]),
        _checkpoint_reward(system),
    ]
    own = [
        node
        for recipe in system.recipes
        for node in (
            step(
                recipe.function(nodes.train_policy),
                ["training_pairs", "latents", "prompt_conditions", "checkpoint_reward", *settings],
                [recipe.dataset(name) for name in ("policy", "training_log", "validation_log")],
                name=recipe.dataset("train_policy"),
                tags=["gpu", "train"],
            ),
            step(
                nodes.tabulate_training_curves,
                recipe.dataset("training_log"),
                recipe.dataset("training_curves"),
                name=recipe.dataset("tabulate_training_curves"),
            ),
        )
    ]
    return Pipeline([*shared, *own])


def _selected_pairs(system: System, settings: list[str]) -> list[Node]:
    """Join the selected pairs, and encode the generated clips."""
    return [
        step(
            system.function(nodes.join_training_pairs),
            [
                "filtered_prompts",
                "video_index",
                "rewards",
                "params:dpo_training",
                *each("preference_pairs", system.recipes),
            ],
            "training_pairs",
        ),
        step(nodes.encode_latents, ["videos", "training_pairs", *settings], "latents", tags=["gpu"]),
    ]


def _given_pairs(settings: list[str]) -> list[Node]:
    """Encode the clips of given pairs, fitted to the generator."""
    return [
        step(
            encode_given_latents,
            ["training_pairs", "given_clips", "given_videos", "params:given_pairs", *settings],
            "latents",
            name="encode_latents",
            tags=["gpu"],
        )
    ]


def _checkpoint_reward(system: System) -> Node:
    """Describe the reward that judges checkpoints: the checklist's, by its parts, or the named one."""
    inputs = ["filtered_prompts", system.reward_parameters, "params:dpo_training"]
    inputs += ["reward_description"] if "reward_scoring" in system.stages else []
    if system.reward == "checklist":
        inputs[1:2] = ["checklist", "reward_weights", "params:judge", "params:checklist_inference"]
    return step(
        nodes.describe_checkpoint_reward if system.reward == "checklist" else nodes.name_checkpoint_reward,
        inputs,
        "checkpoint_reward",
        name="describe_checkpoint_reward",
    )
