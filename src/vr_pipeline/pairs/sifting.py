"""Sifting: comparisons separate winners and losers, and points choose one of each.

Source: UnifiedReward (arXiv 2503.05236), section 3.3. Some pairs of N candidates are compared; winners are chosen and
losers rejected. Every candidate has points: the best chosen and the worst rejected one are the pair, if their points
agree with the comparisons. The public scripts compare points as text, decide ties and failures for the first candidate,
and count a failure as 0 points; here points are numbers, a tie has no winner, and candidates without points are
ignored.

Candidates are clips of a prompt, or responses to a question.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.pairs.candidates import TOLERANCE, BoolArray, Candidates, IntArray, Limits, PairCounts, choose
from vr_pipeline.statistics.labels import FloatArray

BETTER = ("a", "b", "tie")
"""Results of a comparison of candidates ``a`` and ``b``."""


@dataclass(frozen=True)
class SiftCounts(PairCounts):
    """Counts of candidate pairs, comparisons and groups.

    A candidate pair is ``rejected_by_rule`` unless its better candidate is chosen and the other one rejected. Groups
    without a pair have one reason each: ``groups_without_pair`` is the sum of the last five.

    Attributes:
        comparisons: between candidates with points.
        comparisons_tied: ties among them.
        comparisons_disagreeing: comparisons whose winner has fewer points than the loser.
        comparisons_without_points: ignored, because a candidate has no points.
        groups_not_compared: groups without a comparison.
        groups_undecided: groups of ties, or whose candidates all won as often as they lost.
        groups_disagreeing: groups whose best chosen candidate has no more points than the worst rejected one.
        groups_below_margin: groups in which it has more points, but by less than the margin.
        groups_over_number: dropped, because all groups together have their number of pairs with larger margins.
    """

    comparisons: int = 0
    comparisons_tied: int = 0
    comparisons_disagreeing: int = 0
    comparisons_without_points: int = 0
    groups_not_compared: int = 0
    groups_undecided: int = 0
    groups_disagreeing: int = 0
    groups_below_margin: int = 0
    groups_over_number: int = 0


def sift(
    comparisons: pd.DataFrame, points: pd.DataFrame, *, min_margin: float = 0.0
) -> tuple[pd.DataFrame, SiftCounts]:
    """Choose one pair of candidates per group: the best chosen and the worst rejected one.

    A candidate is chosen if it won more comparisons than it lost, and rejected if it lost more than it won.

    Args:
        comparisons: ``group``, ``a``, ``b`` and ``better`` ('a', 'b' or 'tie'), one row per comparison in the group.
            No two candidates are compared twice.
        points: ``group``, ``item`` and ``total``, one row per candidate; ``item`` is unique over all groups. Numbers
            can be text.
        min_margin: smallest difference of points.

    Returns:
        group, chosen, rejected and margin (in points), sorted by group; and counts. The order of rows and of ``a`` and
        ``b`` does not matter; among equal points the first name wins.

    Raises:
        InputError: a column is missing; points are not finite; a candidate is duplicated, compared with itself, twice
            with another, or outside its group.
    """
    _need(points, ("group", "item", "total"), "points")
    _need(comparisons, ("group", "a", "b", "better"), "comparisons")
    rewards = pd.DataFrame({"prompt_id": points["group"], "video_id": points["item"], "total": _numbers(points)})
    twice = rewards["video_id"].duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise InputError(
            f"candidate '{rewards['video_id'].iloc[row]}' has points twice",
            remedy="Give one row per candidate",
            field="item",
            row=row + 1,
        )
    between = comparisons.rename(columns={"group": "prompt_id", "a": "video_id_a", "b": "video_id_b"})
    pairs, counts = sift_clips(rewards, between, Limits(min_margin))
    names = {"prompt_id": "group", "winner_video_id": "chosen", "loser_video_id": "rejected"}
    return pairs.rename(columns=names)[[*names.values(), "margin"]], counts


def sift_clips(rewards: pd.DataFrame, comparisons: pd.DataFrame, limits: Limits) -> tuple[pd.DataFrame, SiftCounts]:
    """Sift clips as :func:`sift`; :func:`vr_pipeline.pairs.candidates.choose` describes rewards, limits and pairs.

    Pairs of a chosen and a rejected clip are kept by largest margin.

    Args:
        rewards: points, one row per clip.
        comparisons: schema ``Comparisons``.
        limits: margins, groups and numbers.
    """
    _need(comparisons, ("prompt_id", "video_id_a", "video_id_b", "better"), "comparisons")
    _need(rewards, ("video_id", "prompt_id", "total", *(("sample_index",) if limits.group_size else ())), "rewards")
    rewards = rewards.reset_index(drop=True)
    group = _groups(rewards, limits.group_size)
    compared, unscored = _with_points(comparisons, rewards)
    _check_comparisons(compared, rewards, group)
    standing = _standing(compared, len(rewards))
    total = rewards["total"].to_numpy(dtype=np.float64)
    a, b = (compared[name].to_numpy(dtype=np.int64) for name in ("row_a", "row_b"))

    def chosen_against_rejected(candidates: Candidates) -> BoolArray:
        return np.asarray((standing[candidates.winner] > 0) & (standing[candidates.loser] < 0), dtype=bool)

    pairs, counts = choose(rewards, limits, chosen_against_rejected)
    return pairs, SiftCounts(
        **counts.to_json(),
        comparisons=len(compared),
        comparisons_tied=int((compared["better"] == "tie").sum()),
        comparisons_disagreeing=int((_sign(compared) * (total[a] - total[b]) < -TOLERANCE).sum()),
        comparisons_without_points=unscored,
        **_group_counts(total, group, standing, compared, counts.groups - counts.groups_without_pair, limits),
    )


def _need(table: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"the {name} have no column '{missing[0]}'", remedy="Make them again", field=missing[0])


def _numbers(points: pd.DataFrame) -> FloatArray:
    numbers = pd.to_numeric(points["total"], errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise InputError(
            f"the points of candidate '{points['item'].iloc[row]}' are not finite: {points['total'].iloc[row]}",
            remedy="Score it again or remove it",
            field="total",
            row=row + 1,
        )
    return numbers


def _groups(rewards: pd.DataFrame, group_size: int | None) -> IntArray:
    """Return the group number of every clip: of its prompt, or of its block of samples of the prompt."""
    block = rewards["sample_index"].astype("int64") // group_size if group_size else pd.Series(0, index=rewards.index)
    return np.asarray(rewards.groupby([rewards["prompt_id"], block], sort=True).ngroup(), dtype=np.int64)


def _with_points(comparisons: pd.DataFrame, rewards: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the comparisons of scored clips with their rows in both tables, and the number of others."""
    rows = pd.Series(np.arange(len(rewards)), index=rewards["video_id"].to_numpy())
    rows = rows[~rows.index.duplicated()]  # choose() reports duplicated clips
    a, b = (comparisons[name].map(rows).to_numpy(dtype=np.float64) for name in ("video_id_a", "video_id_b"))
    there = np.isfinite(a) & np.isfinite(b)
    compared = comparisons[there].assign(
        row=np.flatnonzero(there), row_a=a[there].astype(np.int64), row_b=b[there].astype(np.int64)
    )
    return compared, len(comparisons) - len(compared)


def _check_comparisons(compared: pd.DataFrame, rewards: pd.DataFrame, group: IntArray) -> None:
    a, b = (compared[name].to_numpy(dtype=np.int64) for name in ("row_a", "row_b"))
    pairs = pd.DataFrame({"low": np.minimum(a, b), "high": np.maximum(a, b)})
    elsewhere = (group[a] != group[b]) | (rewards["prompt_id"].to_numpy()[a] != compared["prompt_id"].to_numpy())
    unknown = ~compared["better"].isin(BETTER).to_numpy()
    for wrong, problem, remedy in (
        (a == b, "a candidate is compared with itself", "Compare two candidates"),
        (pairs.duplicated().to_numpy(), "two candidates are compared twice", "Give one row per comparison"),
        (elsewhere, "candidates are compared outside their group", "Compare within the groups of selection"),
        (unknown, f"a comparison is not one of {', '.join(BETTER)}", "Correct the column 'better'"),
    ):
        if wrong.any():
            one = compared.iloc[int(wrong.argmax())]
            raise InputError(
                f"{problem}: '{one['video_id_a']}' and '{one['video_id_b']}'",
                remedy=remedy,
                field="comparisons",
                row=int(one["row"]) + 1,
            )


def _standing(compared: pd.DataFrame, clips: int) -> IntArray:
    """Return wins minus losses of every clip."""
    a, b = (compared[name].to_numpy(dtype=np.int64) for name in ("row_a", "row_b"))
    sign = _sign(compared)
    standing = np.zeros(clips, dtype=np.int64)
    np.add.at(standing, a, sign)
    np.add.at(standing, b, -sign)
    return standing


def _sign(compared: pd.DataFrame) -> IntArray:
    """Return 1 if a is better, -1 if b is better, 0 for a tie."""
    return np.asarray(compared["better"].map({"a": 1, "b": -1, "tie": 0}), dtype=np.int64)


def _group_counts(
    total: FloatArray, group: IntArray, standing: IntArray, compared: pd.DataFrame, selected: int, limits: Limits
) -> dict[str, int]:
    """Count groups by the reason for no pair; ``selected`` groups have one."""
    groups = int(group.max()) + 1 if len(group) else 0
    best, worst = np.full(groups, -np.inf), np.full(groups, np.inf)
    np.maximum.at(best, group[standing > 0], total[standing > 0])
    np.minimum.at(worst, group[standing < 0], total[standing < 0])
    was_compared = np.zeros(groups, dtype=bool)
    was_compared[group[compared["row_a"].to_numpy(dtype=np.int64)]] = True
    # A group has as many wins as losses, so it has both chosen and rejected candidates, or neither.
    decided = np.isfinite(best)
    lead = np.where(decided, best, 0.0) - np.where(decided, worst, 0.0)
    agrees = decided & (lead > TOLERANCE)
    passes = agrees & (lead >= limits.min_margin - TOLERANCE)
    return {
        "groups_not_compared": int((~was_compared).sum()),
        "groups_undecided": int((was_compared & ~decided).sum()),
        "groups_disagreeing": int((decided & ~agrees).sum()),
        "groups_below_margin": int((agrees & ~passes).sum()),
        "groups_over_number": int(passes.sum()) - selected,
    }
