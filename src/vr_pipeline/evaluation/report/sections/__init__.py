"""The sections of the report page: one file and one entry of :data:`SECTIONS` each, in page order.

A section is a function of the titles of the policies (the original, the baseline, then the others) and of its inputs.
It returns elements of :mod:`vr_pipeline.evaluation.report.elements`, or none to omit the section.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from markupsafe import Markup

from vr_pipeline.evaluation.report.sections import (
    agreement,
    by_prompt,
    clips,
    comparisons,
    disagreement,
    given,
    overlaps,
    pairs,
    pareto,
    prompts,
    provenance,
    rewards,
    spread,
    suites,
    summary,
    training,
    weights,
    wins,
)


class Section(NamedTuple):
    """A part of the page.

    Args:
        name: its address in the page, and the end of its dataset's name.
        link: its name in the navigation.
        title: its heading.
        make: returns its elements from titles and inputs.
        inputs: datasets, separated by spaces; ``{recipe}`` is replaced by each recipe, ``{baseline}`` by the first. An
            input ending in ``?`` is None if the run lacks it; if another is missing, the section is omitted.
    """

    name: str
    link: str
    title: str
    make: Callable[..., Sequence[Markup]]
    inputs: str

    def datasets(self, recipes: Sequence[str], there: Collection[str] | None = None) -> list[str]:
        """Return the inputs for recipes, limited to the datasets ``there`` (None for no limit)."""
        names = [name.removesuffix("?") for name in self._names(recipes)]
        return [name for name in names if there is None or name in there]

    def places(self, recipes: Sequence[str], there: Collection[str]) -> tuple[bool, ...]:
        """Return whether the run has each input."""
        return tuple(name.removesuffix("?") in there for name in self._names(recipes))

    def is_possible(self, recipes: Sequence[str], there: Collection[str]) -> bool:
        """Return whether the datasets ``there`` include all required inputs."""
        return all(name in there for name in self._names(recipes) if not name.endswith("?"))

    def _names(self, recipes: Sequence[str]) -> list[str]:
        return [
            name.format(recipe=recipe, baseline=recipes[0])
            for name in self.inputs.split()
            for recipe in (recipes if "{recipe}" in name else recipes[:1])
        ]


_REWARDS = "evaluation_rewards evaluation_oracle_rewards evaluation_auditor_rewards?"
_CLIPS = "evaluation_videos evaluation_video_index"
_PAIRS = "pair_selection_report pair_audit? preference_pairs_{baseline} videos video_index params:evaluation"
_RANKED = "pair_comparisons pair_ranking_report pair_selection_report videos video_index params:evaluation"
_ANSWERS = "evaluation_metrics checklist evaluation_answers evaluation_oracle_answers evaluation_video_index"
_WEIGHTS = "reward_weights checklist oracle? preference_answers? preference_deviations?"
_PEOPLE = "reward_agreement preference_report? pair_scores? accuracy_curve?"
_LOGS = "training_log_{recipe} validation_log_{recipe}"
_POINTS = f"{_REWARDS} validation_log_{{recipe}}"

SECTIONS = (
    Section("summary", "Summary", "Summary", summary.make, f"evaluation_metrics {_REWARDS} reward_agreement?"),
    Section("clips", "Clips", "Clips side by side", clips.make, f"{_CLIPS} {_REWARDS} params:evaluation"),
    Section("rewards", "Rewards", "Rewards", rewards.make, f"evaluation_metrics {_REWARDS} policy_deviations?"),
    Section("by_prompt", "By prompt", "Gains by prompt", by_prompt.make, f"{_REWARDS} evaluation_video_index"),
    Section("wins", "Win rates", "Win rates", wins.make, "evaluation_metrics"),
    Section("pareto", "Dimensions", "Trade-offs between dimensions", pareto.make, _POINTS),
    Section("spread", "Diversity", "Diversity and drift", spread.make, "clip_spread"),
    Section("suites", "Suites", "Public suites", suites.make, "suite_scores"),
    Section("weights", "Weights", "What the reward values", weights.make, _WEIGHTS),
    Section("people", "People", "Agreement with preferences", agreement.make, _PEOPLE),
    Section("comparisons", "Comparisons", "Comparisons of clips", comparisons.make, _RANKED),
    Section(
        "overlaps", "Overlaps", "Prompts trained on and tested on", overlaps.make, "prompt_overlaps preference_report"
    ),
    Section("pairs", "Pairs", "Training pairs", pairs.make, _PAIRS),
    Section("given", "Given pairs", "Given pairs", given.make, "given_pairs_report"),
    Section("training", "Training", "Training health", training.make, _LOGS),
    Section("disagreement", "Judge and oracle", "Where judge and oracle disagree", disagreement.make, _ANSWERS),
    Section("prompts", "Prompts", "Prompt filter", prompts.make, "prompt_filter_report"),
)

PROVENANCE = Section("provenance", "", "Provenance", provenance.make, provenance.DATA)
"""The footer with the data of the page."""
