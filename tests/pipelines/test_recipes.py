"""The list of recipes, and what the catalog has for each."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import yaml

from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.pipelines.dpo_training.nodes import train_policy
from vr_pipeline.pipelines.recipes import RECIPES, Recipe

CATALOG = Path(__file__).parents[2] / "conf" / "base" / "catalog"


def test_names_are_words_that_nothing_else_has() -> None:
    names = [recipe.name for recipe in RECIPES]
    assert len({*names, ORIGINAL}) == len(names) + 1
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_entry_of_the_catalog_takes_the_place_of_a_recipes_own(recipe: Recipe) -> None:
    entries = [name for path in CATALOG.glob("*.yml") for name in yaml.safe_load(path.read_text())]
    patterns = [name.partition("_{")[0] for name in entries if name.endswith("_{recipe}")]
    assert "policy" in patterns
    # Kedro prefers an entry to a pattern: the policy of a recipe 'deviations' would be the table of that name.
    assert not {recipe.dataset(pattern) for pattern in patterns} & set(entries)


def test_a_function_of_a_recipe_reaches_other_processes() -> None:
    function = pickle.loads(pickle.dumps(RECIPES[0].function(train_policy)))
    assert (function.func, function.keywords) == (train_policy, {"recipe": RECIPES[0].name})
