"""Pipeline given_pairs."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pairs.given import decide_pairs, keep_usable, pairs_report
from vr_pipeline.pipelines.given_pairs import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import GIVEN_DPO, System


def create_pipeline(system: System = GIVEN_DPO, **kwargs: Any) -> Pipeline:
    """Lead from pairs of any format to training pairs and held-out prompts."""
    (recipe,) = system.recipes
    known = ["given_pair_decisions", "given_clips", "filtered_prompts"]
    return Pipeline(
        [
            step(decide_pairs, "given_pairs", "decided_pairs", name="decide_given_pairs"),
            step(
                nodes.examine_given_clips,
                ["given_pairs", "decided_pairs", "given_videos", "params:generator", "params:given_pairs"],
                "given_clips",
            ),
            step(keep_usable, ["decided_pairs", "given_clips"], "given_pair_decisions", name="keep_usable_pairs"),
            step(nodes.divide_given_prompts, ["given_pair_decisions", "params:given_pairs"], "filtered_prompts"),
            step(recipe.function(nodes.list_training_pairs), known, "training_pairs"),
            step(pairs_report, known, "given_pairs_report", name="report_given_pairs"),
        ]
    )
