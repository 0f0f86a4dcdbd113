"""The sections of the report page: one file and one entry of :data:`SECTIONS` each, in the order of the page.

A section is made by a function of the titles of the policies (the original first, then the trained ones, the baseline
first of them) and of its inputs. It returns elements of :mod:`vr_pipeline.evaluation.report.elements`; none of them
leave the section out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from markupsafe import Markup

from vr_pipeline.evaluation.report.sections import (
    agreement,
    clips,
    disagreement,
    given,
    pairs,
    pictures,
    prompts,
    provenance,
    rewards,
    summary,
    training,
    weights,
    wins,
)


class Section(NamedTuple):
    """A part of the page.

    Args:
        name: its address in the page, and the end of the name of its dataset.
        link: its name in the navigation.
        title: its heading.
        make: from the titles and the inputs to its elements.
        inputs: datasets, with spaces between; ``{recipe}`` stands for the name of each recipe in turn, ``{baseline}``
            for the first. One that ends in ``?`` is None where the run has no such dataset; where the run lacks
            another, the page does not have the section.
    """

    name: str
    link: str
    title: str
    make: Callable[..., Sequence[Markup]]
    inputs: str

    def datasets(self, recipes: Sequence[str], there: Collection[str] | None = None) -> list[str]:
        """Return the inputs of a run with these recipes, which has certain datasets; None for all."""
        names = [name.removesuffix("?") for name in self._names(recipes)]
        return [name for name in names if there is None or name in there]

    def places(self, recipes: Sequence[str], there: Collection[str]) -> tuple[bool, ...]:
        """Say of each input whether the run has it."""
        return tuple(name.removesuffix("?") in there for name in self._names(recipes))

    def is_possible(self, recipes: Sequence[str], there: Collection[str]) -> bool:
        """Whether a run that has these datasets has all that the section needs."""
        return all(name in there for name in self._names(recipes) if not name.endswith("?"))

    def _names(self, recipes: Sequence[str]) -> list[str]:
        return [
            name.format(recipe=recipe, baseline=recipes[0])
            for name in self.inputs.split()
            for recipe in (recipes if "{recipe}" in name else recipes[:1])
        ]


_REWARDS = "evaluation_rewards evaluation_oracle_rewards"
_CLIPS = "evaluation_videos evaluation_video_index"
_PAIRS = "pair_selection_report preference_pairs_{baseline} videos video_index params:evaluation"
_ANSWERS = "evaluation_metrics checklist evaluation_answers evaluation_oracle_answers evaluation_video_index"
_LOGS = "training_log_{recipe} validation_log_{recipe}"

SECTIONS = (
    Section("summary", "Summary", "Summary", summary.make, f"evaluation_metrics {_REWARDS} reward_agreement?"),
    Section("clips", "Clips", "Clips side by side", clips.make, f"{_CLIPS} {_REWARDS} params:evaluation"),
    Section("rewards", "Rewards", "Rewards", rewards.make, f"evaluation_metrics {_REWARDS}"),
    Section("wins", "Win rates", "Win rates", wins.make, "evaluation_metrics"),
    Section("weights", "Weights", "What the reward values", weights.make, "reward_weights checklist"),
    Section("people", "People", "Agreement with preferences", agreement.make, "reward_agreement"),
    Section("pairs", "Pairs", "Training pairs", pairs.make, _PAIRS),
    Section("given", "Given pairs", "Given pairs", given.make, "given_pairs_report"),
    Section("training", "Training", "Training health", training.make, _LOGS),
    Section("disagreement", "Judge and oracle", "Where judge and oracle disagree", disagreement.make, _ANSWERS),
    Section("pictures", "Pictures", "Pictures", pictures.make, "? ".join([*pictures.PICTURES, ""])),
    Section("prompts", "Prompts", "Prompt filter", prompts.make, "prompt_filter_report"),
)

PROVENANCE = Section("provenance", "", "Provenance", provenance.make, provenance.DATA)
"""The footer: from which data the page was made."""
