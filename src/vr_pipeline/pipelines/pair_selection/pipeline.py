"""pair_selection: rewards -> preference_pairs_<recipe>, with what became of every candidate."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.pair_selection.nodes import (
    draw_pair_plots,
    report_pair_selection,
    select_pairs_of_recipes,
)
from vr_pipeline.pipelines.recipes import each


def create_pipeline(**kwargs: Any) -> Pipeline:
    selected = [*each("preference_pairs"), *each("pair_counts")]
    return Pipeline(
        [
            Node(
                select_pairs_of_recipes,
                inputs=["params:pair_selection", "rewards"],
                outputs=selected,
                name="select_pairs",
            ),
            Node(
                report_pair_selection,
                inputs=selected,
                outputs="pair_selection_report",
                name="report_pair_selection",
            ),
            Node(
                draw_pair_plots,
                inputs=["rewards", "pair_selection_report", "params:pair_selection"],
                outputs=["dimension_gaps_plot", "pair_fates_plot"],
                name="draw_pair_plots",
            ),
        ]
    )
