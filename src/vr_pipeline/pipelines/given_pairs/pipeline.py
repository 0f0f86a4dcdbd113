"""Pipeline given_pairs."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.given_pairs import nodes
from vr_pipeline.pipelines.systems import GIVEN_DPO, System


def create_pipeline(system: System = GIVEN_DPO, **kwargs: Any) -> Pipeline:
    """Lead from pairs of any form to pairs that can be trained on, and to the prompts that are held out."""
    (recipe,) = system.recipes
    known = ["given_pair_decisions", "given_clips", "filtered_prompts"]
    return Pipeline(
        [
            Node(
                nodes.decide_given_pairs,
                inputs="given_pairs",
                outputs="decided_pairs",
                name="decide_given_pairs",
            ),
            Node(
                nodes.examine_given_clips,
                inputs=["given_pairs", "decided_pairs", "given_videos", "params:generator", "params:given_pairs"],
                outputs="given_clips",
                name="examine_given_clips",
            ),
            Node(
                nodes.keep_usable_pairs,
                inputs=["decided_pairs", "given_clips"],
                outputs="given_pair_decisions",
                name="keep_usable_pairs",
            ),
            Node(
                nodes.divide_given_prompts,
                inputs=["given_pair_decisions", "params:given_pairs"],
                outputs="filtered_prompts",
                name="divide_given_prompts",
            ),
            Node(
                recipe.function(nodes.list_training_pairs),
                inputs=known,
                outputs="training_pairs",
                name="list_training_pairs",
            ),
            Node(
                nodes.report_given_pairs,
                inputs=known,
                outputs="given_pairs_report",
                name="report_given_pairs",
            ),
        ]
    )
