"""Choice of training pairs from rewards, and comparisons for some rules."""

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.pairs.candidates import TOLERANCE, Limits
from vr_pipeline.pairs.rules import RULES


def select_pairs(
    rewards: pd.DataFrame,
    rule: str,
    *,
    comparisons: pd.DataFrame | None = None,
    min_margin: float = 0.0,
    max_pairs_per_prompt: int | None = 1,
    group_size: int | None = None,
    dominance_tolerance: float = TOLERANCE,
    max_pairs: int | None = None,
) -> pd.DataFrame:
    """Select pairs of a better and a worse clip of the same prompt.

    Args:
        rewards: one row per clip: ``video_id``, ``prompt_id``, ``total``, one column ``dim_<name>`` per dimension, and
            ``sample_index`` with ``group_size``.
        rule: ``mpo`` keeps a pair only if the better clip is at least as good in every dimension; ``dpo`` uses the
            total only; ``sift`` keeps a pair only if the better clip won its ``comparisons`` and the other one lost
            them, so that the largest margin is between the best winner and the worst loser.
        comparisons: of pairs of these clips by a ranker (schema ``Comparisons``: ``prompt_id``, ``video_id_a``,
            ``video_id_b``, ``better``), for rules that need them.
        min_margin: smallest difference of totals, in units of the reward (the paper: 0.8 for dpo and 0.6 for mpo on
            CogVideoX-5B).
        max_pairs_per_prompt: number of pairs to keep by largest margin, then by identifiers of winner and loser; None
            keeps all.
        group_size: pairs only among clips of a prompt whose ``sample_index`` is in the same block of this length (0 to
            group_size - 1, and so on), and the number of pairs is per block. None takes the whole prompt.
        dominance_tolerance: largest deficit of the better clip in a dimension at which it still dominates, in units of
            the reward. Binary answers need only a tolerance of float noise; with probabilities, clips without a flaw
            still differ in the third digit.
        max_pairs: number of pairs to keep over all prompts, by largest margin; None keeps all.

    Returns:
        prompt_id, winner_video_id, loser_video_id, margin, dominates, and ``dim_<name>_gap`` (winner minus loser) per
        dimension; sorted by prompt, block, margin (largest first) and identifiers, independent of the order of the
        input. Differences are compared with a tolerance of 1e-9.

    Raises:
        InputError: a column is missing, a reward is not finite, a clip is duplicated, an option is invalid, or a rule
            needs comparisons.
    """
    if rule not in RULES:
        raise InputError(f"unknown rule '{rule}'", remedy=f"Use one of {', '.join(RULES)}", field="rule")
    limits = Limits(min_margin, max_pairs_per_prompt, group_size, dominance_tolerance, max_pairs)
    return RULES[rule](rewards, comparisons, limits)[0]
