"""The recipes: each selects its own pairs, trains its own policy, and has its own row in the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import Any, NamedTuple

from vr_pipeline.generators.policy import ORIGINAL


class Recipe(NamedTuple):
    """A rule that selects pairs, and an objective. The choice of both is configuration.

    Args:
        name: ends the names of its datasets, such as ``policy_<name>``; a key of ``pair_selection.recipes`` and
            ``dpo_training.recipes``.
        title: what plots and the report call it.
    """

    name: str
    title: str

    def dataset(self, prefix: str) -> str:
        """Return the dataset of this recipe that begins with the prefix, as in the catalog: ``<prefix>_<name>``."""
        return f"{prefix}_{self.name}"

    def function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Bind a function to this recipe as a node: its argument ``recipe`` is set, types and description stay."""
        return update_wrapper(partial(function, recipe=self.name), function)


Recipes = tuple[Recipe, ...]

RECIPES: Recipes = (
    Recipe("dpo", title="DPO"),
    Recipe("mpo", title="MPO"),
)
"""The recipes that select pairs by rewards, the baseline of the comparison first. Tables and plots keep this order."""


def each(prefix: str, recipes: Recipes = RECIPES) -> list[str]:
    """Return the datasets of all recipes that begin with the prefix, in the order of the recipes."""
    return [recipe.dataset(prefix) for recipe in recipes]


def titles_of(recipes: Recipes) -> dict[str, str]:
    """Return what plots and the report call each policy, in their order: the original first."""
    return {ORIGINAL: "Original"} | {recipe.name: recipe.title for recipe in recipes}


def by_recipe(recipes: Recipes, values: Sequence[Any]) -> dict[str, Any]:
    """Return values that come in the order of the recipes by the names of these."""
    return dict(zip([recipe.name for recipe in recipes], values, strict=True))
