"""Pipeline dpo_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.dpo_training import nodes

STRATEGIES = ("mpo", "dpo")
"""Pair-selection strategies a policy is trained for; 'dpo' is the baseline of the ablation."""


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Pairs and clips to one policy for each strategy."""
    return Pipeline(
        [
            Node(
                nodes.encode_latents,
                inputs=[
                    "videos",
                    "video_index",
                    "preference_pairs_mpo",
                    "preference_pairs_dpo",
                    "params:generator",
                    "params:dpo_training",
                ],
                outputs="latents",
                name="encode_latents",
                tags=["gpu"],
            ),
            Node(
                nodes.encode_prompts,
                inputs=[
                    "filtered_prompts",
                    "preference_pairs_mpo",
                    "preference_pairs_dpo",
                    "params:generator",
                    "params:dpo_training",
                ],
                outputs="prompt_conditions",
                name="encode_prompts",
                tags=["gpu"],
            ),
            *(
                Node(
                    nodes.train_policy,
                    inputs=[
                        f"preference_pairs_{strategy}",
                        "latents",
                        "prompt_conditions",
                        "rewards",
                        "filtered_prompts",
                        "video_index",
                        "checklist",
                        "reward_weights",
                        "params:judge",
                        "params:checklist_inference",
                        "params:generator",
                        "params:dpo_training",
                    ],
                    outputs=[f"policy_{strategy}", f"training_log_{strategy}", f"validation_log_{strategy}"],
                    name=f"train_policy_{strategy}",
                    tags=["gpu", "train"],
                )
                for strategy in STRATEGIES
            ),
            *(
                Node(
                    nodes.tabulate_training_curves,
                    inputs=f"training_log_{strategy}",
                    outputs=f"training_curves_{strategy}",
                    name=f"tabulate_training_curves_{strategy}",
                )
                for strategy in STRATEGIES
            ),
        ]
    )
