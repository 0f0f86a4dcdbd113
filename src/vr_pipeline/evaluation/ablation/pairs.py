"""Training pairs of the ablation's rules, in equal numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.ablation.config import AblationParameters
from vr_pipeline.pairs.candidates import largest_margins
from vr_pipeline.pairs.config import PairSelectionParameters
from vr_pipeline.pairs.rules import RULES


def select_by_rules(
    rewards: pd.DataFrame, selection: PairSelectionParameters, parameters: AblationParameters
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Select the pairs of every rule.

    Returns:
        the training pairs by rule, and by rule the numbers of selected (``n``), dominating and other pairs
        (``dominating``, ``not_dominating``: Table 5 of the paper), and training pairs (``trained_on``).

    Raises:
        InputError: a rule is unknown, or one has no pairs.
    """
    selected = {}
    for name in parameters.pair_rules:
        if name not in selection.recipes:
            raise InputError(
                f"unknown pair rule '{name}'",
                field="ablation.pair_rules",
                remedy=f"Use recipes of pair_selection: {', '.join(selection.recipes)}",
            )
        selected[name] = RULES[selection.recipes[name].rule](rewards, None, selection.limits(name))[0]
    fewest = min(len(pairs) for pairs in selected.values())
    empty = [name for name, pairs in selected.items() if pairs.empty]
    if empty:
        raise InputError(
            f"the rule '{empty[0]}' selects no pair",
            field="ablation.pair_rules",
            remedy="Make more videos per prompt, or lower the margins in pair_selection",
        )
    used = {
        name: largest_margins(pairs, fewest) if parameters.match_numbers else pairs for name, pairs in selected.items()
    }
    counts = {}
    for name, pairs in selected.items():
        dominating = int(pairs["dominates"].sum())
        counts[name] = {"n": len(pairs), "dominating": dominating, "not_dominating": len(pairs) - dominating}
        counts[name]["trained_on"] = len(used[name])
    return used, counts
