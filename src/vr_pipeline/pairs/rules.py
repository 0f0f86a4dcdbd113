"""Pair rules: which pairs of clips a policy is trained on. A rule is a function and a line of :data:`RULES`."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from vr_pipeline.pairs.candidates import Limits, PairCounts, choose

PairRule = Callable[[pd.DataFrame, Limits], tuple[pd.DataFrame, PairCounts]]
"""From rewards and limits to pairs and the fates of candidates; see :func:`vr_pipeline.pairs.candidates.choose`."""


def by_total(rewards: pd.DataFrame, limits: Limits) -> tuple[pd.DataFrame, PairCounts]:
    """Look at the total reward alone."""
    return choose(rewards, limits)


def by_dominance(rewards: pd.DataFrame, limits: Limits) -> tuple[pd.DataFrame, PairCounts]:
    """Keep a pair only if the better clip is at least as good in every dimension."""
    return choose(rewards, limits, lambda candidates: candidates.dominates)


RULES: dict[str, PairRule] = {
    "dpo": by_total,
    "mpo": by_dominance,
}
