"""Choice of training pairs from rewards: by total reward (dpo), or where one clip dominates in every dimension (mpo).

Source: VisionReward (arXiv 2412.21059), section 3.3. One clip dominates another if its reward is at least as high in
every dimension; a pair needs a total difference above 0 and, on top, a margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray

from vr_pipeline.errors import InputError

Strategy = Literal["mpo", "dpo"]
TOLERANCE = 1e-9
"""Rewards closer than this are equal: sums of the same weights in another order differ by float noise."""

_DECIMALS = 9
_PAIRS_AT_A_TIME = 1 << 18

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PairCounts:
    """The fate of every candidate pair of clips under one prompt (or in one group).

    Attributes:
        clips, groups: what was offered.
        candidates: unordered pairs within a group; equals the sum of the five fates below.
        tied: total rewards equal.
        not_dominating: dropped by 'mpo' because the better clip is worse in some dimension.
        below_margin: total difference under the margin.
        over_cap: passed, but the group already had its number of pairs with larger margins.
        selected: kept.
        selected_dominating, selected_not_dominating: the kept ones, split by dominance (Table 5 of the paper).
        groups_without_pair: groups that give no pair.
    """

    clips: int
    groups: int
    candidates: int
    tied: int
    not_dominating: int
    below_margin: int
    over_cap: int
    selected: int
    selected_dominating: int
    selected_not_dominating: int
    groups_without_pair: int

    def to_json(self) -> dict[str, int]:
        """A dictionary of the counts."""
        return {name: int(value) for name, value in asdict(self).items()}


def select_pairs(
    rewards: pd.DataFrame,
    rule: Strategy,
    *,
    min_margin: float = 0.0,
    max_pairs_per_prompt: int | None = 1,
    group_size: int | None = None,
    dominance_tolerance: float = TOLERANCE,
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

    Returns:
        prompt_id, winner_video_id, loser_video_id, margin, dominates, and ``dim_<name>_gap`` (winner minus loser) a
        dimension; sorted by prompt, block, margin (largest first) and identifiers. The order of the input has no
        influence. Differences are compared with a tolerance of 1e-9.

    Raises:
        InputError: columns missing, a reward that is not a finite number, a clip that occurs twice, a bad option.
    """
    pairs, _ = select_and_count_pairs(
        rewards,
        rule,
        min_margin=min_margin,
        max_pairs_per_prompt=max_pairs_per_prompt,
        group_size=group_size,
        dominance_tolerance=dominance_tolerance,
    )
    return pairs


def select_and_count_pairs(
    rewards: pd.DataFrame,
    strategy: Strategy,
    *,
    min_margin: float = 0.0,
    max_pairs_per_prompt: int | None = 1,
    group_size: int | None = None,
    dominance_tolerance: float = TOLERANCE,
) -> tuple[pd.DataFrame, PairCounts]:
    """As :func:`select_pairs`, with the fate of every candidate."""
    _check_options(strategy, min_margin, max_pairs_per_prompt, group_size)
    if not dominance_tolerance >= 0:
        raise InputError("the tolerance is negative", remedy="Give 0 or more", field="dominance_tolerance")
    tolerance = max(dominance_tolerance, TOLERANCE)
    dimensions = [str(name) for name in rewards.columns if str(name).startswith("dim_")]
    table = _Clips.make(rewards, dimensions, group_size)
    counts = {"candidates": 0, "tied": 0, "not_dominating": 0, "below_margin": 0}
    parts: list[tuple[IntArray, IntArray, FloatArray, BoolArray]] = []
    for first, second in table.candidate_pairs():
        difference = table.total[first] - table.total[second]
        differs = np.abs(difference) > TOLERANCE
        counts["candidates"] += len(first)
        counts["tied"] += int(len(first) - differs.sum())
        first, second, difference = first[differs], second[differs], difference[differs]
        swap = difference < 0
        winner, loser = np.where(swap, second, first), np.where(swap, first, second)
        margin = np.abs(difference)
        dominates = np.asarray((table.values[winner] - table.values[loser] >= -tolerance).all(axis=1), dtype=bool)
        passed = margin >= min_margin - TOLERANCE
        if strategy == "mpo":
            counts["not_dominating"] += int((~dominates).sum())
            counts["below_margin"] += int((dominates & ~passed).sum())
            passed &= dominates
        else:
            counts["below_margin"] += int((~passed).sum())
        parts.append((winner[passed], loser[passed], margin[passed], dominates[passed]))
    winner = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, dtype=np.int64)
    loser = np.concatenate([part[1] for part in parts]) if parts else np.empty(0, dtype=np.int64)
    margin = np.concatenate([part[2] for part in parts]) if parts else np.empty(0)
    dominates = np.concatenate([part[3] for part in parts]) if parts else np.empty(0, dtype=bool)
    # Clips are sorted by prompt, block and identifier, so positions compare as identifiers do. Margins are rounded to
    # the tolerance, so that float noise does not decide between pairs of equal margin.
    group = table.group[winner]
    order = np.lexsort((loser, winner, -np.round(margin, _DECIMALS), group))
    rank = _rank_within(group[order])
    if max_pairs_per_prompt is not None:
        order = order[rank < max_pairs_per_prompt]
    over_cap = len(winner) - len(order)
    winner, loser, margin, dominates = winner[order], loser[order], margin[order], dominates[order]
    columns: dict[str, object] = {
        "prompt_id": table.prompt_ids.take(winner),
        "winner_video_id": table.video_ids.take(winner),
        "loser_video_id": table.video_ids.take(loser),
        "margin": margin,
        "dominates": dominates,
    }
    for i, name in enumerate(dimensions):
        columns[f"{name}_gap"] = table.values[winner, i] - table.values[loser, i]
    pairs = pd.DataFrame(columns)
    return pairs, PairCounts(
        clips=len(table.total),
        groups=table.n_groups,
        **counts,
        over_cap=over_cap,
        selected=len(pairs),
        selected_dominating=int(dominates.sum()),
        selected_not_dominating=int((~dominates).sum()),
        groups_without_pair=table.n_groups - int(np.unique(table.group[winner]).size),
    )


def largest_margins(pairs: pd.DataFrame, number: int) -> pd.DataFrame:
    """The pairs of largest margin, as raising the margin to match a number of pairs would leave them.

    Equal margins are taken in order of the winner's and the loser's identifier. The rows keep their order.
    """
    if number >= len(pairs):
        return pairs.reset_index(drop=True)
    order = np.lexsort(
        (
            pd.factorize(pairs["loser_video_id"], sort=True)[0],
            pd.factorize(pairs["winner_video_id"], sort=True)[0],
            -np.round(pairs["margin"].to_numpy(dtype=np.float64), _DECIMALS),
        )
    )
    return pairs.iloc[np.sort(order[:number])].reset_index(drop=True)


@dataclass(frozen=True)
class _Clips:
    """Clips sorted by prompt, block and identifier."""

    prompt_ids: ExtensionArray
    video_ids: ExtensionArray
    total: FloatArray
    values: FloatArray  # [clips, dimensions]
    group: IntArray  # number of the prompt's block, ascending
    n_groups: int

    @classmethod
    def make(cls, rewards: pd.DataFrame, dimensions: list[str], group_size: int | None) -> _Clips:
        needed = ["video_id", "prompt_id", "total"] + (["sample_index"] if group_size else [])
        missing = [name for name in needed if name not in rewards.columns]
        if missing:
            raise InputError(
                f"the rewards have no column '{missing[0]}'", remedy="Score the videos again", field=missing[0]
            )
        total = rewards["total"].to_numpy(dtype=np.float64)
        values = rewards[dimensions].to_numpy(dtype=np.float64) if dimensions else np.empty((len(rewards), 0))
        for name, column in (("total", total), *((name, values[:, i]) for i, name in enumerate(dimensions))):
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                raise InputError(
                    f"the reward of video '{rewards['video_id'].iloc[row]}' is not a finite number",
                    remedy="Score the video again or leave it out",
                    field=name,
                    row=row + 1,
                )
        video_codes, video_names = pd.factorize(rewards["video_id"], sort=True)
        if len(video_names) != len(rewards):
            row = int(rewards["video_id"].duplicated().to_numpy().argmax())
            raise InputError(
                f"video '{rewards['video_id'].iloc[row]}' occurs twice",
                remedy="Give one row a video",
                field="video_id",
                row=row + 1,
            )
        prompt_codes, _ = pd.factorize(rewards["prompt_id"], sort=True)
        block = (
            rewards["sample_index"].to_numpy(dtype=np.int64) // group_size
            if group_size
            else np.zeros(len(rewards), dtype=np.int64)
        )
        order = np.lexsort((video_codes, block, prompt_codes))
        starts = np.r_[True, (np.diff(prompt_codes[order]) != 0) | (np.diff(block[order]) != 0)][: len(order)]
        group = np.cumsum(starts) - 1
        return cls(
            prompt_ids=rewards["prompt_id"].array.take(order),
            video_ids=rewards["video_id"].array.take(order),
            total=total[order],
            values=values[order],
            group=group.astype(np.int64),
            n_groups=int(group[-1]) + 1 if len(group) else 0,
        )

    def candidate_pairs(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Positions of the two clips of every pair within a group, some hundred thousand pairs at a time."""
        sizes = np.bincount(self.group, minlength=self.n_groups)
        starts = np.cumsum(sizes) - sizes
        for size in np.unique(sizes):
            if size < 2:
                continue
            low, high = np.triu_indices(int(size), k=1)
            of_size = starts[sizes == size]
            for part in range(0, len(low), _PAIRS_AT_A_TIME):  # one prompt with very many clips
                low_part, high_part = low[part : part + _PAIRS_AT_A_TIME], high[part : part + _PAIRS_AT_A_TIME]
                step = max(1, _PAIRS_AT_A_TIME // len(low_part))
                for begin in range(0, len(of_size), step):
                    offset = of_size[begin : begin + step, None]
                    yield (offset + low_part).ravel(), (offset + high_part).ravel()


def _rank_within(group: IntArray) -> IntArray:
    """Position of each element within its run of equal values."""
    starts = np.r_[True, group[1:] != group[:-1]] if len(group) else np.empty(0, dtype=bool)
    position = np.arange(len(group))
    return position - np.maximum.accumulate(np.where(starts, position, 0)) if len(group) else position


def _check_options(strategy: str, min_margin: float, max_pairs_per_prompt: int | None, group_size: int | None) -> None:
    if strategy not in ("mpo", "dpo"):
        raise InputError(f"unknown rule '{strategy}'", remedy="Use mpo or dpo", field="strategy")
    if not min_margin >= 0:
        raise InputError("the margin is negative", remedy="Give a margin of 0 or more", field="min_margin")
    if max_pairs_per_prompt is not None and max_pairs_per_prompt < 1:
        raise InputError(
            "no pair may be kept", remedy="Give 1 or more, or null for all pairs", field="max_pairs_per_prompt"
        )
    if group_size is not None and group_size < 2:
        raise InputError("a group has fewer than two clips", remedy="Give 2 or more, or null", field="group_size")
