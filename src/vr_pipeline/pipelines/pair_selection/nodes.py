"""Nodes of pair_selection."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.pairs.report import pair_selection_report
from vr_pipeline.pairs.selection import Strategy, select_and_count_pairs, select_pairs
from vr_pipeline.rewards import plots
from vr_pipeline.rewards.config import PairSelectionParameters, PairStrategyParameters


def select_mpo_pairs(
    rewards: pd.DataFrame, checklist: Checklist, parameters: PairSelectionParameters
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Pairs in which the better clip is at least as good in every dimension, and the fates of all candidates."""
    return _select(rewards, checklist, "mpo", parameters.mpo, parameters)


def select_dpo_pairs(
    rewards: pd.DataFrame, checklist: Checklist, parameters: PairSelectionParameters
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Pairs by total reward alone, and the fates of all candidates."""
    return _select(rewards, checklist, "dpo", parameters.dpo, parameters)


def report_pair_selection(
    mpo_pairs: pd.DataFrame, mpo_counts: dict[str, int], dpo_pairs: pd.DataFrame, dpo_counts: dict[str, int]
) -> dict[str, Any]:
    """Counts by strategy, fates, and the comparison at matched numbers of pairs."""
    return pair_selection_report({"dpo": (dpo_pairs, dpo_counts), "mpo": (mpo_pairs, mpo_counts)})


def draw_pair_plots(
    rewards: pd.DataFrame, report: dict[str, Any], parameters: PairSelectionParameters
) -> tuple[Figure, Figure]:
    """Gap by dimension of the pairs that dominance keeps and rejects, and the fates of the candidates."""
    candidates = select_pairs(
        rewards,
        "dpo",
        min_margin=parameters.mpo.min_margin,
        max_pairs_per_prompt=None,
        group_size=parameters.group_size,
        dominance_tolerance=parameters.dominance_tolerance,
    )
    return plots.gap_by_dimension(candidates), plots.pair_fates(report)


def _select(
    rewards: pd.DataFrame,
    checklist: Checklist,
    strategy: Strategy,
    limits: PairStrategyParameters,
    parameters: PairSelectionParameters,
) -> tuple[pd.DataFrame, dict[str, int]]:
    expected = [f"dim_{name}" for name in checklist.dimensions]
    found = [name for name in rewards.columns if name.startswith("dim_")]
    if sorted(found) != sorted(expected):
        odd = sorted(set(found) ^ set(expected))[0]
        raise InputError(
            f"the rewards and the checklist do not have the same dimensions ('{odd}' is in one only)",
            remedy="Run weight_regression again after a change of the checklist",
            field=odd,
        )
    pairs, counts = select_and_count_pairs(
        rewards,
        strategy,
        min_margin=limits.min_margin,
        max_pairs_per_prompt=limits.max_pairs_per_group,
        group_size=parameters.group_size,
        dominance_tolerance=parameters.dominance_tolerance,
    )
    return pairs, counts.to_json()
