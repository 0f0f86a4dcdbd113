"""Pipeline dpo_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.dpo_training import nodes
from vr_pipeline.pipelines.given_pairs.nodes import encode_given_latents
from vr_pipeline.pipelines.recipes import each
from vr_pipeline.pipelines.systems import MPO_DPO, System


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Pairs and clips to one policy for each recipe."""
    settings = ["params:generator", "params:dpo_training"]
    shared = [
        *(_selected_pairs(system, settings) if system.selects_pairs else _given_pairs(settings)),
        Node(
            nodes.encode_prompts,
            inputs=["training_pairs", *settings],
            outputs="prompt_conditions",
            name="encode_prompts",
            tags=["gpu"],
        ),
        _checkpoint_reward(system),
    ]
    own = [
        node
        for recipe in system.recipes
        for node in (
            Node(
                recipe.function(nodes.train_policy),
                inputs=["training_pairs", "latents", "prompt_conditions", "checkpoint_reward", *settings],
                outputs=[recipe.dataset(name) for name in ("policy", "training_log", "validation_log")],
                name=recipe.dataset("train_policy"),
                tags=["gpu", "train"],
            ),
            Node(
                nodes.tabulate_training_curves,
                inputs=recipe.dataset("training_log"),
                outputs=recipe.dataset("training_curves"),
                name=recipe.dataset("tabulate_training_curves"),
            ),
        )
    ]
    return Pipeline([*shared, *own])


def _selected_pairs(system: System, settings: list[str]) -> list[Node]:
    """Bring the selected pairs together, and encode the clips that were made."""
    return [
        Node(
            system.function(nodes.join_training_pairs),
            inputs=[
                "filtered_prompts",
                "video_index",
                "rewards",
                "params:dpo_training",
                *each("preference_pairs", system.recipes),
            ],
            outputs="training_pairs",
            name="join_training_pairs",
        ),
        Node(
            nodes.encode_latents,
            inputs=["videos", "training_pairs", *settings],
            outputs="latents",
            name="encode_latents",
            tags=["gpu"],
        ),
    ]


def _given_pairs(settings: list[str]) -> list[Node]:
    """Encode the clips of pairs that are given, fitted to the generator."""
    return [
        Node(
            encode_given_latents,
            inputs=["training_pairs", "given_clips", "given_videos", "params:given_pairs", *settings],
            outputs="latents",
            name="encode_latents",
            tags=["gpu"],
        )
    ]


def _checkpoint_reward(system: System) -> Node:
    """Describe what judges the checkpoints: the checklist's reward by its parts, or the reward that is named."""
    inputs = ["filtered_prompts", "params:reward_model", "params:dpo_training"]
    inputs += ["reward_description"] if "reward_scoring" in system.stages else []
    if system.reward == "checklist":
        inputs[1:2] = ["checklist", "reward_weights", "params:judge", "params:checklist_inference"]
    return Node(
        nodes.describe_checkpoint_reward if system.reward == "checklist" else nodes.name_checkpoint_reward,
        inputs=inputs,
        outputs="checkpoint_reward",
        name="describe_checkpoint_reward",
    )
