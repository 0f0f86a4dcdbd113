"""pair_selection: rewards -> preference_pairs_<recipe>, with the outcome of every candidate."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.pair_selection.nodes import draw_pair_plots, report_pair_selection, select_pairs_of_recipes
from vr_pipeline.pipelines.recipes import each
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import MPO_DPO, System


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from rewards, and comparisons if the system has any, to the pairs of its recipes."""
    selected = [*each("preference_pairs", system.recipes), *each("pair_counts", system.recipes)]
    comparisons = ["pair_comparisons"] if system.ranks_pairs else []
    return Pipeline(
        [
            step(
                system.function(select_pairs_of_recipes),
                ["params:pair_selection", "rewards", *comparisons],
                selected,
                name="select_pairs",
            ),
            step(system.function(report_pair_selection), selected, "pair_selection_report"),
            step(
                system.function(draw_pair_plots),
                ["rewards", "pair_selection_report", "params:pair_selection"],
                ["dimension_gaps_plot", "pair_fates_plot"],
            ),
        ]
    )
