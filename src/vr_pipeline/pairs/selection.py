"""Choice of training pairs from rewards by one of the rules."""

from __future__ import annotations

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.pairs.candidates import TOLERANCE, Limits
from vr_pipeline.pairs.rules import RULES


def select_pairs(
    rewards: pd.DataFrame,
    rule: str,
    *,
    min_margin: float = 0.0,
    max_pairs_per_prompt: int | None = 1,
    group_size: int | None = None,
    dominance_tolerance: float = TOLERANCE,
    max_pairs: int | None = None,
) -> pd.DataFrame:
    """Select pairs of a better and a worse clip of the same prompt.

    Args:
        rewards: one row per clip: ``video_id``, ``prompt_id``, ``total``, one column ``dim_<name>`` a dimension, and
            ``sample_index`` if ``group_size`` is given.
        rule: ``mpo`` keeps a pair only if the better clip is at least as good in every dimension; ``dpo`` looks at
            the total alone.
        min_margin: smallest difference of total rewards, in units of the reward (the paper: 0.8 for dpo and 0.6 for
            mpo on CogVideoX-5B).
        max_pairs_per_prompt: the pairs of largest margin that are kept, equal margins in order of the winner's and
            then the loser's identifier; None keeps all.
        group_size: pairs only among clips of a prompt whose ``sample_index`` falls in the same block of this length
            (0 to group_size - 1, and so on); the cap then holds in each block. None takes the whole prompt.
        dominance_tolerance: how far the better clip may be behind in a dimension and still dominate, in units of the
            reward. Rewards of binary answers take few values and need none beyond float noise; with probabilities two
            clips without a flaw differ in the third digit, which says nothing about either.
        max_pairs: the pairs of largest margin over all prompts that are kept; None keeps all.

    Returns:
        prompt_id, winner_video_id, loser_video_id, margin, dominates, and ``dim_<name>_gap`` (winner minus loser) a
        dimension; sorted by prompt, block, margin (largest first) and identifiers. The order of the input has no
        influence. Differences are compared with a tolerance of 1e-9.

    Raises:
        InputError: columns missing, a reward that is not a finite number, a clip that occurs twice, a bad option.
    """
    if rule not in RULES:
        raise InputError(f"unknown rule '{rule}'", remedy=f"Use one of {', '.join(RULES)}", field="rule")
    limits = Limits(min_margin, max_pairs_per_prompt, group_size, dominance_tolerance, max_pairs)
    return RULES[rule](rewards, limits)[0]
