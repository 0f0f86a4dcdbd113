"""The systems: each leads from prompts or given pairs to compared policies, by the stages it names.

Systems share the names and files of datasets, so that a report, a figure or a notebook works with all of them. They
differ in how rewards are made, and so in how checkpoints are judged and what the evaluation can show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from importlib import import_module
from typing import Any, Literal, NamedTuple

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.recipes import RECIPES, Recipe, Recipes

RewardKind = Literal["checklist", "reward_model"]
"""Who gives the rewards: the checklist with fitted weights, or the reward that the parameters ``reward_model`` name."""


class System(NamedTuple):
    """A whole pipeline.

    Args:
        name: of its pipeline.
        reward: who gives the rewards of clips, checkpoints and policies.
        stages: folders of ``vr_pipeline.pipelines`` in the order in which they run.
        own: those of them that it makes otherwise than the first system; they are registered as ``<word>_<stage>``,
            with the first word of its name.
        recipes: what it trains.
    """

    name: str
    reward: RewardKind
    stages: tuple[str, ...]
    own: frozenset[str] = frozenset()
    recipes: Recipes = RECIPES

    @property
    def selects_pairs(self) -> bool:
        """Whether pairs are selected among made clips by their rewards; otherwise they are given."""
        return "pair_selection" in self.stages

    def registered(self, stage: str) -> str:
        """Return the name of the pipeline of a stage."""
        return f"{self.name.partition('_')[0]}_{stage}" if stage in self.own else stage

    def stage(self, stage: str) -> Pipeline:
        """Make a stage: a group that can be folded in the picture; datasets keep their names."""
        made = import_module(f"vr_pipeline.pipelines.{stage}").create_pipeline(system=self)
        return Pipeline(made, namespace=self.registered(stage), prefix_datasets_with_namespace=False)

    def pipeline(self) -> Pipeline:
        """Make the whole."""
        return sum(map(self.stage, self.stages), Pipeline([]))

    def datasets_before(self, stage: str) -> set[str]:
        """Return the datasets that the stages before this one read or make."""
        before = self.stages[: self.stages.index(stage)]
        return {name for one in before for name in self.stage(one).datasets()}

    def function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Bind a function to the recipes of this system as a node: its argument ``recipes`` is set."""
        return update_wrapper(partial(function, recipes=self.recipes), function)


MPO_DPO = System(
    "mpo_dpo",
    "checklist",
    (
        "prompt_filtering",
        "video_generation",
        "checklist_inference",
        "weight_regression",
        "pair_selection",
        "dpo_training",
        "evaluation",
    ),
)

GIVEN_DPO = System(
    "given_dpo",
    "reward_model",
    ("given_pairs", "dpo_training", "evaluation"),
    own=frozenset({"dpo_training", "evaluation"}),
    recipes=(Recipe("given", title="Given pairs"),),
)

SYSTEMS = (
    MPO_DPO,
    System(
        "videoreward_dpo",
        "reward_model",
        ("prompt_filtering", "video_generation", "reward_scoring", "pair_selection", "dpo_training", "evaluation"),
        own=frozenset({"video_generation", "dpo_training", "evaluation"}),
    ),
    GIVEN_DPO,
    System(
        "ablation",
        "checklist",
        ("prompt_filtering", "video_generation", "checklist_inference", "weight_regression", "ablation_study"),
        recipes=(),
    ),
)
"""All systems. The first one has the stages that others take as they are, and is what ``kedro run`` runs."""
