"""Report on the choice of pairs: counts, Table 5 of the paper, and gaps by dimension."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vr_pipeline.pairs.candidates import largest_margins


def pair_selection_report(selections: Mapping[str, tuple[pd.DataFrame, Mapping[str, int]]]) -> dict[str, Any]:
    """Return counts of every recipe, as selected and for equal numbers of pairs.

    Args:
        selections: recipe -> its pairs and counts of the candidates (``PairCounts.to_json``).

    Returns:
        ``strategies``: per recipe n, dominating, not_dominating (Table 5 of the paper) and ``fates``;
        ``matched``: the same three counts for as many pairs of largest margin as the smallest recipe has, and their
        smallest margin; ``mean_gap``: per recipe and dimension the mean of winner minus loser.
    """
    smallest = min((len(pairs) for pairs, _ in selections.values()), default=0)
    matched = {}
    for name, (pairs, _) in selections.items():
        top = largest_margins(pairs, smallest)
        matched[name] = {**_table_row(top), "margin": float(top["margin"].min()) if len(top) else None}
    return {
        "strategies": {
            name: {**_table_row(pairs), "fates": dict(counts)} for name, (pairs, counts) in selections.items()
        },
        "matched": matched,
        "mean_gap": {
            name: {
                column.removeprefix("dim_").removesuffix("_gap"): float(pairs[column].mean()) if len(pairs) else None
                for column in pairs.columns
                if column.startswith("dim_") and column.endswith("_gap")
            }
            for name, (pairs, _) in selections.items()
        },
    }


def _table_row(pairs: pd.DataFrame) -> dict[str, int]:
    dominating = int(pairs["dominates"].sum())
    return {"n": len(pairs), "dominating": dominating, "not_dominating": len(pairs) - dominating}
