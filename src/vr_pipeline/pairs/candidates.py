"""Choice of pairs among candidate pairs of clips, by a rule and limits.

Source: VisionReward (arXiv 2412.21059), section 3.3. A clip dominates another if its reward is at least as high in
every dimension; the total difference of a pair must be above 0 and at least the margin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.labels import FloatArray

TOLERANCE = 1e-9
"""Rewards closer than this are equal: the order of a sum changes it by float noise."""

_DECIMALS = 9
_PAIRS_AT_A_TIME = 1 << 18

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Limits(NamedTuple):
    """Limits of every rule, as in :func:`vr_pipeline.pairs.selection.select_pairs`."""

    min_margin: float = 0.0
    max_pairs_per_prompt: int | None = 1
    group_size: int | None = None
    dominance_tolerance: float = TOLERANCE
    max_pairs: int | None = None


class Candidates(NamedTuple):
    """Pairs of clips of a group whose totals differ.

    Attributes:
        winner: row of the better clip in the rewards, from 0, array [pairs].
        loser: row of the other clip.
        margin: total of the winner minus total of the loser, array [pairs].
        gaps: the same by dimension, array [pairs, dimensions].
        dominates: whether no gap is below minus the tolerance, array [pairs].
    """

    winner: IntArray
    loser: IntArray
    margin: FloatArray
    gaps: FloatArray
    dominates: BoolArray


@dataclass(frozen=True)
class PairCounts:
    """Counts of candidate pairs by result.

    Attributes:
        clips, groups: numbers in the input.
        candidates: unordered pairs within a group; the sum of the next six counts.
        tied: equal totals.
        rejected_by_rule: dropped by the rule, such as 'mpo' if the better clip is worse in a dimension.
        below_margin: total difference under the margin.
        over_cap: dropped, because the group has its number of pairs with larger margins.
        over_number: dropped, because all groups together have their number of pairs with larger margins.
        selected: kept.
        selected_dominating, selected_not_dominating: kept, by dominance (Table 5 of the paper).
        groups_without_pair: groups that give no pair.
    """

    clips: int
    groups: int
    candidates: int
    tied: int
    rejected_by_rule: int
    below_margin: int
    over_cap: int
    over_number: int
    selected: int
    selected_dominating: int
    selected_not_dominating: int
    groups_without_pair: int

    def to_json(self) -> dict[str, int]:
        """Return the counts as a dictionary."""
        return {name: int(value) for name, value in asdict(self).items()}


def choose(
    rewards: pd.DataFrame, limits: Limits, keep: Callable[[Candidates], BoolArray] | None = None
) -> tuple[pd.DataFrame, PairCounts]:
    """Choose pairs of a better and a worse clip, the largest margins first.

    Args:
        rewards: see :func:`vr_pipeline.pairs.selection.select_pairs`.
        limits: margins, groups and numbers.
        keep: returns which candidates the rule keeps; None for all.

    Returns:
        the pairs, and counts of all candidates.

    Raises:
        InputError: a column is missing, a reward is not finite, a clip is duplicated, or a limit is invalid.
    """
    _check(limits)
    tolerance = max(limits.dominance_tolerance, TOLERANCE)
    dimensions = [str(name) for name in rewards.columns if str(name).startswith("dim_")]
    table = _Clips.make(rewards, dimensions, limits.group_size)
    fates = Counter(candidates=0, tied=0, rejected_by_rule=0, below_margin=0)
    no_clip = np.empty(0, dtype=np.int64)
    parts: list[tuple[IntArray, IntArray, FloatArray, BoolArray]] = [(no_clip, no_clip, np.empty(0), no_clip > 0)]
    for first, second in table.candidate_pairs():
        difference = table.total[first] - table.total[second]
        differs = np.abs(difference) > TOLERANCE
        fates.update(candidates=len(first), tied=int(len(first) - differs.sum()))
        first, second, difference = first[differs], second[differs], difference[differs]
        winner, loser = np.where(difference < 0, second, first), np.where(difference < 0, first, second)
        margin, gaps = np.abs(difference), table.values[winner] - table.values[loser]
        dominates = np.asarray((gaps >= -tolerance).all(axis=1), dtype=bool)
        rows = table.rows
        kept = (
            np.ones_like(dominates)
            if keep is None
            else keep(Candidates(rows[winner], rows[loser], margin, gaps, dominates))
        )
        passed = kept & (margin >= limits.min_margin - TOLERANCE)
        fates.update(rejected_by_rule=int((~kept).sum()), below_margin=int((kept & ~passed).sum()))
        parts.append((winner[passed], loser[passed], margin[passed], dominates[passed]))
    winner, loser, margin, dominates = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    # Clips are sorted by prompt, block and identifier, so positions sort like identifiers. Margins are rounded to the
    # tolerance, so that float noise does not order pairs of equal margin.
    group = table.group[winner]
    order = np.lexsort((loser, winner, -np.round(margin, _DECIMALS), group))
    if limits.max_pairs_per_prompt is not None:
        order = order[_rank_within(group[order]) < limits.max_pairs_per_prompt]
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
    pairs, group = pd.DataFrame(columns), table.group[winner]
    if limits.max_pairs is not None and limits.max_pairs < len(pairs):
        rows = _largest(pairs, limits.max_pairs)
        pairs, group = pairs.iloc[rows].reset_index(drop=True), group[rows]
    dominating = int(pairs["dominates"].sum())
    return pairs, PairCounts(
        clips=len(table.total),
        groups=table.n_groups,
        **fates,
        over_cap=over_cap,
        over_number=len(winner) - len(pairs),
        selected=len(pairs),
        selected_dominating=dominating,
        selected_not_dominating=len(pairs) - dominating,
        groups_without_pair=table.n_groups - int(np.unique(group).size),
    )


def largest_margins(pairs: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return this number of pairs with the largest margins, as a higher margin would.

    Among equal margins, identifiers of winner and loser decide. The rows keep their order.
    """
    return (pairs if number >= len(pairs) else pairs.iloc[_largest(pairs, number)]).reset_index(drop=True)


def _largest(pairs: pd.DataFrame, number: int) -> IntArray:
    order = np.lexsort(
        (
            pd.factorize(pairs["loser_video_id"], sort=True)[0],
            pd.factorize(pairs["winner_video_id"], sort=True)[0],
            -np.round(pairs["margin"].to_numpy(dtype=np.float64), _DECIMALS),
        )
    )
    return np.sort(order[:number])


@dataclass(frozen=True)
class _Clips:
    """Clips sorted by prompt, block and identifier."""

    rows: IntArray  # in the rewards
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
                    remedy="Score the video again or remove it",
                    field=name,
                    row=row + 1,
                )
        video_codes, video_names = pd.factorize(rewards["video_id"], sort=True)
        if len(video_names) != len(rewards):
            row = int(rewards["video_id"].duplicated().to_numpy().argmax())
            raise InputError(
                f"video '{rewards['video_id'].iloc[row]}' occurs twice",
                remedy="Give one row per video",
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
            rows=order.astype(np.int64),
            prompt_ids=rewards["prompt_id"].array.take(order),
            video_ids=rewards["video_id"].array.take(order),
            total=total[order],
            values=values[order],
            group=group.astype(np.int64),
            n_groups=int(group[-1]) + 1 if len(group) else 0,
        )

    def candidate_pairs(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield positions of the two clips of every pair within a group, in blocks of some hundred thousand pairs."""
        sizes = np.bincount(self.group, minlength=self.n_groups)
        starts = np.cumsum(sizes) - sizes
        for size in np.unique(sizes):
            if size < 2:
                continue
            low, high = np.triu_indices(int(size), k=1)
            of_size = starts[sizes == size]
            for part in range(0, len(low), _PAIRS_AT_A_TIME):  # for a prompt with very many clips
                low_part, high_part = low[part : part + _PAIRS_AT_A_TIME], high[part : part + _PAIRS_AT_A_TIME]
                step = max(1, _PAIRS_AT_A_TIME // len(low_part))
                for begin in range(0, len(of_size), step):
                    offset = of_size[begin : begin + step, None]
                    yield (offset + low_part).ravel(), (offset + high_part).ravel()


def _rank_within(group: IntArray) -> IntArray:
    """Return the position of each element within its run of equal values."""
    starts = np.r_[True, group[1:] != group[:-1]] if len(group) else np.empty(0, dtype=bool)
    position = np.arange(len(group))
    return position - np.maximum.accumulate(np.where(starts, position, 0)) if len(group) else position


def _check(limits: Limits) -> None:
    wrong = (
        (not limits.min_margin >= 0, "the margin is negative", "Give 0 or more", "min_margin"),
        (
            limits.max_pairs_per_prompt is not None and limits.max_pairs_per_prompt < 1,
            "it allows no pairs",
            "Give 1 or more, or null for all pairs",
            "max_pairs_per_prompt",
        ),
        (
            limits.group_size is not None and limits.group_size < 2,
            "a group has fewer than two clips",
            "Give 2 or more, or null",
            "group_size",
        ),
        (not limits.dominance_tolerance >= 0, "the tolerance is negative", "Give 0 or more", "dominance_tolerance"),
    )
    for is_wrong, problem, remedy, field in wrong:
        if is_wrong:
            raise InputError(problem, remedy=remedy, field=field)
