"""Nodes of pair_selection."""

from typing import Any

import pandas as pd

from vr_pipeline.drawing import Figure
from vr_pipeline.pairs import plots
from vr_pipeline.pairs.config import PairSelectionParameters
from vr_pipeline.pairs.report import pair_selection_report
from vr_pipeline.pairs.rules import RULES
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.pipelines.recipes import RECIPES, Recipes, by_recipe


def select_pairs_of_recipes(
    parameters: PairSelectionParameters,
    rewards: pd.DataFrame,
    comparisons: pd.DataFrame | None = None,
    *,
    recipes: Recipes = RECIPES,
) -> list[Any]:
    """Select the pairs of every recipe by its rule and limits.

    Returns:
        the pairs of every recipe, then the outcomes of all candidates for every recipe.
    """
    blocks = {recipe.name: parameters.recipes[recipe.name] for recipe in recipes}

    def select(most: int | None = None) -> list[tuple[pd.DataFrame, Any]]:
        return [
            RULES[block.rule](rewards, comparisons, parameters.limits(name, most)) for name, block in blocks.items()
        ]

    selections = select()
    if parameters.match_numbers:
        selections = select(min(len(pairs) for pairs, _ in selections))
    return [*(pairs for pairs, _ in selections), *(counts.to_json() for _, counts in selections)]


def report_pair_selection(*pairs_and_counts: Any, recipes: Recipes = RECIPES) -> dict[str, Any]:
    """Report counts by recipe, outcomes of candidates, and the comparison at matched numbers of pairs."""
    pairs, counts = pairs_and_counts[: len(recipes)], pairs_and_counts[len(recipes) :]
    return pair_selection_report(by_recipe(recipes, list(zip(pairs, counts, strict=True))))


def draw_pair_plots(
    rewards: pd.DataFrame,
    report: dict[str, Any],
    parameters: PairSelectionParameters,
    recipes: Recipes = RECIPES,
) -> tuple[Figure, Figure]:
    """Draw gaps by dimension of pairs that dominance keeps and rejects, and the outcomes of the candidates."""
    candidates = select_pairs(
        rewards,
        "dpo",
        min_margin=min(parameters.recipes[recipe.name].min_margin for recipe in recipes),
        max_pairs_per_prompt=None,
        group_size=parameters.group_size,
        dominance_tolerance=parameters.dominance_tolerance,
    )
    return plots.gap_by_dimension(candidates), plots.pair_fates(report)
