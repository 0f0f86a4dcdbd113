"""The systems: each leads from prompts or given pairs to compared policies, in several stages.

Systems share the names and files of datasets, so reports, plots and notebooks work with all of them. They differ in
their rewards, and therefore in the judging of checkpoints and the content of the evaluation.
"""

from collections.abc import Callable
from functools import partial, update_wrapper
from importlib import import_module
from typing import Any, Literal, NamedTuple

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.recipes import RECIPES, SIFTING_RECIPES, Recipe, Recipes

RewardKind = Literal["checklist", "reward_model"]
"""The reward: the checklist with fitted weights, or the one that a parameter block names."""


class System(NamedTuple):
    """A complete pipeline.

    Args:
        name: of its pipeline.
        reward: of clips, checkpoints and policies.
        stages: folders of ``vr_pipeline.pipelines`` in order of execution.
        own: stages that differ from the first system's; they are registered as ``<word>_<stage>``, with the first word
            of the system's name.
        recipes: of its policies.
        reward_block: the parameters that name its reward, unless it is the checklist.
    """

    name: str
    reward: RewardKind
    stages: tuple[str, ...]
    own: frozenset[str] = frozenset()
    recipes: Recipes = RECIPES
    reward_block: str = "reward_model"

    @property
    def selects_pairs(self) -> bool:
        """Whether pairs of generated clips are selected by rewards; otherwise pairs are given."""
        return "pair_selection" in self.stages

    @property
    def ranks_pairs(self) -> bool:
        """Whether a model also compares pairs of clips."""
        return "pair_ranking" in self.stages

    @property
    def reward_parameters(self) -> str:
        """The dataset of the parameters that name its reward."""
        return f"params:{self.reward_block}"

    def registered(self, stage: str) -> str:
        """Return the name of the pipeline of a stage."""
        return f"{self.name.partition('_')[0]}_{stage}" if stage in self.own else stage

    def stage(self, stage: str) -> Pipeline:
        """Return the pipeline of a stage, in a namespace that the graph can collapse; datasets keep their names."""
        # The rounds of online training have one folder.
        folder, _, number = stage.rpartition("_") if stage[-1].isdigit() else (stage, "", "")
        options = {"number": int(number)} if number else {}
        made = import_module(f"vr_pipeline.pipelines.{folder}.pipeline").create_pipeline(system=self, **options)
        return Pipeline(made, namespace=self.registered(stage), prefix_datasets_with_namespace=False)

    def pipeline(self) -> Pipeline:
        """Return the complete pipeline."""
        return Pipeline([*map(self.stage, self.stages)])

    def datasets_before(self, stage: str) -> set[str]:
        """Return the datasets that earlier stages read or make."""
        before = self.stages[: self.stages.index(stage)]
        return {name for one in before for name in self.stage(one).datasets()}

    def function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Bind a node function to the system's recipes: set its argument ``recipes``."""
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

UNIFIED_DPO = System(
    "unified_dpo",
    "reward_model",
    (
        "prompt_filtering",
        "video_generation",
        "pair_ranking",
        "reward_scoring",
        "pair_selection",
        "dpo_training",
        "evaluation",
    ),
    own=frozenset({"video_generation", "reward_scoring", "pair_selection", "dpo_training", "evaluation"}),
    recipes=SIFTING_RECIPES,
    reward_block="unified_reward_model",
)

GIVEN_DPO = System(
    "given_dpo",
    "reward_model",
    ("given_pairs", "dpo_training", "evaluation"),
    own=frozenset({"dpo_training", "evaluation"}),
    recipes=(Recipe("given", title="Given pairs"),),
)

JUDGE_MPO = System(
    "judge_mpo",
    "checklist",
    ("judge_training", *MPO_DPO.stages),
    # Judging waits for the trained judge.
    own=frozenset({"checklist_inference"}),
)

SYSTEMS = (
    MPO_DPO,
    JUDGE_MPO,
    System(
        "videoreward_dpo",
        "reward_model",
        ("prompt_filtering", "video_generation", "reward_scoring", "pair_selection", "dpo_training", "evaluation"),
        own=frozenset({"video_generation", "dpo_training", "evaluation"}),
    ),
    UNIFIED_DPO,
    GIVEN_DPO,
    System(
        "ablation",
        "checklist",
        ("prompt_filtering", "video_generation", "checklist_inference", "weight_regression", "ablation_study"),
        recipes=(),
    ),
)
"""All systems but :func:`online_mpo`. The first one has the default stages, and ``kedro run`` runs it."""


def online_mpo(rounds: int) -> System:
    """Return the system whose policies are trained in rounds, each on clips of the last one's policy."""
    numbers = range(1, rounds + 1)
    return System(
        "online_mpo",
        "checklist",
        ("prompt_filtering", "online_start", *(f"online_round_{number}" for number in numbers), "evaluation"),
        own=frozenset({"evaluation"}),
        recipes=tuple(Recipe(f"round_{number}", title=f"Round {number}") for number in numbers),
    )
