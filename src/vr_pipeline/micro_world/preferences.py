"""Simulated people: they look at two clips and prefer the one with the higher hidden utility, with noise.

Their utility is never given to the method. It is used twice: to draw preferences, and, through the oracle, to tell
whether a trained policy is truly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.identifiers import content_hash, pair_id, prompt_id, sample_seed
from vr_pipeline.micro_world.config import PreferenceParameters

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


def utilities(probabilities: npt.NDArray[np.float64], question_ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return hidden utility of clips from the oracle's probabilities of yes, [clips]."""
    return probabilities @ np.array([UTILITY[question] for question in question_ids])


def simulate_preferences(
    video_ids: Sequence[str],
    prompts: Sequence[str],
    utility: npt.NDArray[np.float64],
    parameters: PreferenceParameters,
    *,
    seed: int,
) -> pd.DataFrame:
    """Draw pairs of clips of the same prompt and a noisy comparison of each.

    The perceived difference is the difference in utility plus logistic noise (a Bradley-Terry annotator); small
    perceived differences are ties.

    Returns:
        table with the columns of ``schemas.HumanPreferences``.
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
        perceived = utility[first] - utility[second] + random.logistic(scale=parameters.temperature)
        preference = "tie" if abs(perceived) < parameters.tie_width else ("a" if perceived > 0 else "b")
        rows.append(
            {
                "pair_id": identifier,
                "prompt": prompts[first],
                "video_id_a": video_ids[first],
                "video_id_b": video_ids[second],
                "preference": preference,
                "annotator": "simulated",
                "source": "simulated from a hidden utility",
            }
        )
    return pd.DataFrame(rows)
