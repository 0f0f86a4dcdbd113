"""Rules that choose training pairs. A rule is a function and a line of :data:`RULES`."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.pairs.candidates import TOLERANCE, BoolArray, Candidates, Limits, PairCounts, choose
from vr_pipeline.pairs.sifting import sift_clips

PairRule = Callable[[pd.DataFrame, pd.DataFrame | None, Limits], tuple[pd.DataFrame, PairCounts]]
"""From rewards, comparisons (if any) and limits to pairs and counts of candidates.

See :func:`vr_pipeline.pairs.candidates.choose`. Some rules use rewards only.
"""


def by_total(
    rewards: pd.DataFrame, comparisons: pd.DataFrame | None, limits: Limits
) -> tuple[pd.DataFrame, PairCounts]:
    """Use only the total reward."""
    return choose(rewards, limits)


def by_dominance(
    rewards: pd.DataFrame, comparisons: pd.DataFrame | None, limits: Limits
) -> tuple[pd.DataFrame, PairCounts]:
    """Keep a pair only if the better clip is at least as good in every dimension."""
    return choose(rewards, limits, lambda candidates: candidates.dominates)


def by_bound(
    rewards: pd.DataFrame, comparisons: pd.DataFrame | None, limits: Limits
) -> tuple[pd.DataFrame, PairCounts]:
    """Look at the total reward, but keep a pair only if no dimension of the winner is below the original.

    The original's level of a dimension is the mean over the prompt's clips, which the generator made before training.
    """

    def kept(candidates: Candidates) -> BoolArray:
        values = rewards[[name for name in rewards.columns if str(name).startswith("dim_")]]
        level = values.groupby(rewards["prompt_id"].to_numpy()).transform("mean")
        inside = (values >= level - max(limits.dominance_tolerance, TOLERANCE)).all(axis=1).to_numpy()
        return np.asarray(inside[candidates.winner], dtype=bool)

    return choose(rewards, limits, kept)


def by_sifting(
    rewards: pd.DataFrame, comparisons: pd.DataFrame | None, limits: Limits
) -> tuple[pd.DataFrame, PairCounts]:
    """Keep a pair only if the better clip won its comparisons and the other one lost them."""
    if comparisons is None:
        raise InputError(
            "the rule 'sift' needs comparisons of clips, but there are none",
            remedy="Rank pairs of clips first (as pipeline unified_dpo), or use another rule",
            field="comparisons",
        )
    return sift_clips(rewards, comparisons, limits)


RULES: dict[str, PairRule] = {
    "bounded": by_bound,
    "dpo": by_total,
    "mpo": by_dominance,
    "sift": by_sifting,
}

NEEDS_COMPARISONS = frozenset({"sift"})
"""Rules for systems that rank pairs of clips."""
