"""The recipes: each selects pairs, trains a policy, and has its row in the evaluation."""

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import Any, NamedTuple

from vr_pipeline.generators.policy import ORIGINAL


class Recipe(NamedTuple):
    """A pair rule and an objective, both set in the configuration.

    Args:
        name: last part of its datasets' names, such as ``policy_<name>``; a key of ``pair_selection.recipes`` and
            ``dpo_training.recipes``.
        title: its name in plots and the report.
    """

    name: str
    title: str

    def dataset(self, prefix: str) -> str:
        """Return the recipe's dataset with a prefix: ``<prefix>_<name>``."""
        return f"{prefix}_{self.name}"

    def function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Bind a node function to this recipe: set its argument ``recipe``, keep types and docstring."""
        return update_wrapper(partial(function, recipe=self.name), function)


Recipes = tuple[Recipe, ...]

RECIPES: Recipes = (
    Recipe("dpo", title="DPO"),
    Recipe("mpo", title="MPO"),
)
"""Recipes that select pairs by rewards, the baseline first. Tables and plots keep this order."""

SIFTING_RECIPES: Recipes = (*RECIPES, Recipe("sift", title="Sifted"))
"""Recipes of a system that also compares pairs of clips; all use the same clips and scores."""


def each(prefix: str, recipes: Recipes = RECIPES) -> list[str]:
    """Return the datasets of all recipes with a prefix, in order."""
    return [recipe.dataset(prefix) for recipe in recipes]


def titles_of(recipes: Recipes) -> dict[str, str]:
    """Return policy -> its name in plots and the report, in order, the original first."""
    return {ORIGINAL: "Original"} | {recipe.name: recipe.title for recipe in recipes}


def by_recipe(recipes: Recipes, values: Sequence[Any]) -> dict[str, Any]:
    """Return recipe name -> value, for values in the order of the recipes."""
    return dict(zip([recipe.name for recipe in recipes], values, strict=True))
