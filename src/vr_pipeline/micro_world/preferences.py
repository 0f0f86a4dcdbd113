"""Simulated people: they look at two clips and prefer the one with the higher hidden utility, with noise.

The method never sees their utility. It is used twice: to draw preferences, and, through the oracle, to measure
whether a trained policy is better.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.identifiers import content_hash, pair_id, prompt_id, sample_seed
from vr_pipeline.micro_world.config import AnnotatorParameters, PreferenceParameters, TasteParameters

UTILITY: Final[dict[str, float]] = {
    "colour_matches": 1.1,
    "shape_matches": 1.0,
    "direction_matches": 1.0,
    "background_matches": 1.1,
    "sharp": 0.7,
    "not_very_blurred": 0.8,
    "strong_contrast": 0.6,
    "not_very_faint": 0.8,
    "moves_fast": 0.5,
    "moves_clearly": 0.8,
    "size_kept": 0.5,
    "size_mostly_kept": 0.6,
    "colour_kept": 0.7,
    "brightness_steady": 0.5,
    "brightness_mostly_steady": 0.6,
    "path_straight": 0.6,
}
"""Hidden value of a yes to each question; a clip without any flaw has 11.9."""

CRITERIA: Final[dict[str, tuple[str, ...]]] = {
    "visual": ("quality", "preservation"),
    "motion": ("dynamics", "stability"),
    "text": ("alignment",),
}
"""Criteria of people beside their overall preference, each with its dimensions of the checklist."""


def utilities(probabilities: npt.NDArray[np.float64], question_ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return hidden utility of clips from the oracle's probabilities of yes, [clips]."""
    return probabilities @ np.array([UTILITY[question] for question in question_ids])


def overall_utilities(
    probabilities: npt.NDArray[np.float64], checklist: Checklist, taste: TasteParameters
) -> npt.NDArray[np.float64]:
    """Return what people value in clips overall, [clips]: hidden utility, plus and minus the effects of their taste.

    Args:
        probabilities: of yes to the questions of the checklist, in its order, [clips, questions].
        taste: see :class:`TasteParameters`; the checklist's linear reward cannot express it.
    """
    value = np.array([UTILITY[question] for question in checklist.question_ids])
    dimension = np.array([question.dimension for question in checklist.questions])
    columns = [dimension == name for name in checklist.dimensions]
    shares = np.stack([probabilities[:, own] @ value[own] / value[own].sum() for own in columns], axis=1)
    total = utilities(probabilities, checklist.question_ids)
    return total + taste.interaction * shares.prod(axis=1) - taste.veto * (shares < taste.veto_below).sum(axis=1)


def utilities_by_criterion(
    probabilities: npt.NDArray[np.float64], checklist: Checklist
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the hidden utility of clips in each of :data:`CRITERIA`, [clips]; together they are the whole utility.

    Args:
        probabilities: of yes to the questions of the checklist, in its order, [clips, questions].
    """
    of_question = {question.question_id: question.dimension for question in checklist.questions}
    found = {}
    for criterion, dimensions in CRITERIA.items():
        columns = [at for at, dimension in enumerate(of_question.values()) if dimension in dimensions]
        found[criterion] = utilities(probabilities[:, columns], [checklist.question_ids[at] for at in columns])
    return found


def perceive(difference: float, random: np.random.Generator, annotator: AnnotatorParameters) -> str:
    """Compare two clips as a simulated person does: 'a', 'b' or 'tie'.

    Logistic noise and a width below which a difference is a tie are the Bradley-Terry model with ties of Rao and Kupper
    (1967), with theta = exp(width / temperature).

    Args:
        difference: utility of A minus that of B.
    """
    perceived = difference + random.logistic(scale=annotator.temperature)
    return "tie" if abs(perceived) < annotator.tie_width else ("a" if perceived > 0 else "b")


def simulate_preferences(
    video_ids: Sequence[str],
    prompts: Sequence[str],
    utility: npt.NDArray[np.float64],
    parameters: PreferenceParameters,
    *,
    seed: int,
    by_criterion: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> pd.DataFrame:
    """Draw pairs of clips of the same prompt and a noisy comparison of each.

    Args:
        utility: hidden value of each clip, [clips].
        by_criterion: hidden value of each clip in each criterion, compared with separate noise.

    Returns:
        table with the columns of ``schemas.HumanPreferences``, ``preference_<criterion>`` among them.
    """
    by_prompt: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(index)
    candidates = [
        (first, second)
        for indices in by_prompt.values()
        for position, first in enumerate(indices)
        for second in indices[position + 1 :]
    ]
    candidates.sort(key=lambda pair: content_hash(seed, video_ids[pair[0]], video_ids[pair[1]]))
    rows = []
    for first, second in candidates[: parameters.num_pairs]:
        identifier = pair_id(prompt_id(prompts[first]), video_ids[first], video_ids[second])
        random = np.random.default_rng(sample_seed(seed, identifier, 0))
        if random.random() < 0.5:
            first, second = second, first
        preference = perceive(utility[first] - utility[second], random, parameters)
        rows.append(
            {
                "pair_id": identifier,
                "prompt": prompts[first],
                "video_id_a": video_ids[first],
                "video_id_b": video_ids[second],
                "preference": preference,
                "annotator": "simulated",
                "source": "simulated from a hidden utility",
                **compare_by_criterion(identifier, first, second, by_criterion or {}, parameters.criteria, seed=seed),
            }
        )
    return pd.DataFrame(rows)


def compare_by_criterion(
    pair: str,
    first: int,
    second: int,
    by_criterion: Mapping[str, npt.NDArray[np.float64]],
    annotator: AnnotatorParameters,
    *,
    seed: int,
) -> dict[str, str]:
    """Compare the clips in two places in every criterion. A criterion's noise depends on seed, pair and name alone."""
    return {
        f"preference_{name}": perceive(
            values[first] - values[second], np.random.default_rng(sample_seed(seed, f"{pair} {name}", 0)), annotator
        )
        for name, values in by_criterion.items()
    }
