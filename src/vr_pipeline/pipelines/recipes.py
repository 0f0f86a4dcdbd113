"""The recipes: each selects its own pairs, trains its own policy, and has its own row in the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """A reward, a rule that selects pairs, and an objective. The choice of the three is configuration.

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


REWARD_TABLES = {"checklist": "rewards"}
"""What ``reward`` of a recipe may be: the name of a reward, and the dataset that has it for the clips."""

RECIPES = (
    Recipe("dpo", title="DPO"),
    Recipe("mpo", title="MPO"),
)
"""All recipes, the baseline of the comparison first. Tables and plots list them in this order."""


def each(prefix: str) -> list[str]:
    """Return the datasets of all recipes that begin with the prefix, in the order of :data:`RECIPES`."""
    return [recipe.dataset(prefix) for recipe in RECIPES]
