"""pair_selection: rewards -> preference_pairs_mpo and preference_pairs_dpo, with what became of every candidate."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.pair_selection.nodes import (
    draw_pair_plots,
    report_pair_selection,
    select_dpo_pairs,
    select_mpo_pairs,
)


def create_pipeline(**kwargs: Any) -> Pipeline:
    return Pipeline(
        [
            Node(
                select_mpo_pairs,
                inputs=["rewards", "checklist", "params:pair_selection"],
                outputs=["preference_pairs_mpo", "pair_counts_mpo"],
                name="select_mpo_pairs",
            ),
            Node(
                select_dpo_pairs,
                inputs=["rewards", "checklist", "params:pair_selection"],
                outputs=["preference_pairs_dpo", "pair_counts_dpo"],
                name="select_dpo_pairs",
            ),
            Node(
                report_pair_selection,
                inputs=["preference_pairs_mpo", "pair_counts_mpo", "preference_pairs_dpo", "pair_counts_dpo"],
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
