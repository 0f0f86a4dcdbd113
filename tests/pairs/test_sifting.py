"""Sifting against a brute force in plain Python, what must not matter, and the fate of every group."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.pairs.candidates import Limits
from vr_pipeline.pairs.rules import RULES
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.pairs.sifting import SiftCounts, sift, sift_clips
from vr_pipeline.schemas import PreferencePairs

SWAPPED = {"a": "b", "b": "a", "tie": "tie"}


@st.composite
def candidates(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Comparisons and points of several groups, with ties, cycles and candidates without points."""
    points, comparisons = [], []
    grid = draw(st.sampled_from([0.1, 0.25, 1 / 3]))
    for group in range(draw(st.integers(1, 4))):
        items = [f"{draw(st.integers(0, 9))}-{group}-{i}" for i in range(draw(st.integers(1, 5)))]
        scored = [item for item in items if draw(st.integers(0, 9))]
        # Float noise does not decide between equal points.
        totals = [draw(st.integers(-2, 2)) * grid + draw(st.integers(0, 2)) * 1e-13 for _ in scored]
        points += [(f"g{9 - group}", item, total) for item, total in zip(scored, totals, strict=True)]
        for a, b in combinations(items, 2):
            if draw(st.booleans()):
                comparisons.append((f"g{9 - group}", a, b, draw(st.sampled_from(["a", "b", "tie"]))))
    return (
        pd.DataFrame(comparisons, columns=["group", "a", "b", "better"]),
        pd.DataFrame(points, columns=["group", "item", "total"]).astype({"total": float}),
    )


def brute_force(
    comparisons: pd.DataFrame, points: pd.DataFrame, min_margin: float
) -> tuple[list[tuple[str, str, str]], Counter[str]]:
    """Group, chosen and rejected of every pair, and the fates of comparisons and groups."""
    pairs, fates = [], Counter[str]()
    for group in sorted(set(points["group"])):
        total = {row.item: row.total for row in points.itertuples() if row.group == group}
        of_group = [row for row in comparisons.itertuples() if row.group == group]
        scored = [row for row in of_group if row.a in total and row.b in total]
        fates["comparisons"] += len(scored)
        fates["comparisons_tied"] += sum(row.better == "tie" for row in scored)
        won = [(getattr(row, row.better), getattr(row, SWAPPED[row.better])) for row in scored if row.better != "tie"]
        fates["comparisons_disagreeing"] += sum(total[winner] < total[loser] - 1e-9 for winner, loser in won)
        wins = Counter(getattr(row, row.better) for row in scored if row.better != "tie")
        losses = Counter(getattr(row, SWAPPED[row.better]) for row in scored if row.better != "tie")
        chosen = [item for item in sorted(total) if wins[item] > losses[item]]
        rejected = [item for item in sorted(total) if wins[item] < losses[item]]
        if not scored:
            fates["groups_not_compared"] += 1
        elif not chosen or not rejected:
            fates["groups_undecided"] += 1
        else:
            best = max(chosen, key=lambda item: round(total[item], 9))
            worst = min(rejected, key=lambda item: round(total[item], 9))
            margin = total[best] - total[worst]
            if margin <= 1e-9:
                fates["groups_disagreeing"] += 1
            elif margin < min_margin - 1e-9:
                fates["groups_below_margin"] += 1
            else:
                pairs.append((group, best, worst))
    return pairs, fates


def found(pairs: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(zip(pairs["group"], pairs["chosen"], pairs["rejected"], strict=True))


@given(tables=candidates(), min_margin=st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_equals_brute_force(tables: tuple[pd.DataFrame, pd.DataFrame], min_margin: float) -> None:
    comparisons, points = tables
    pairs, counts = sift(comparisons, points, min_margin=min_margin)
    expected, fates = brute_force(comparisons, points, min_margin)
    assert found(pairs) == expected
    total = points.set_index("item")["total"]
    for pair in pairs.itertuples():
        assert pair.margin == total[pair.chosen] - total[pair.rejected]
    reasons = ("not_compared", "undecided", "disagreeing", "below_margin")
    for name in (
        "comparisons",
        "comparisons_tied",
        "comparisons_disagreeing",
        *(f"groups_{reason}" for reason in reasons),
    ):
        assert getattr(counts, name) == fates[name], name
    assert counts.comparisons + counts.comparisons_without_points == len(comparisons)
    assert counts.groups_without_pair == sum(getattr(counts, f"groups_{reason}") for reason in reasons)
    assert counts.candidates == counts.tied + counts.rejected_by_rule + counts.below_margin + counts.over_cap + len(
        pairs
    )


@given(tables=candidates(), seed=st.integers(0, 100), sides=st.lists(st.booleans(), min_size=40, max_size=40))
def test_neither_order_nor_sides_matter(
    tables: tuple[pd.DataFrame, pd.DataFrame], seed: int, sides: list[bool]
) -> None:
    comparisons, points = tables
    swapped = [
        (row.group, row.b, row.a, SWAPPED[row.better]) if swap else (row.group, row.a, row.b, row.better)
        for row, swap in zip(comparisons.itertuples(), sides, strict=False)
    ]
    other = pd.DataFrame(swapped, columns=comparisons.columns).sample(frac=1, random_state=seed)
    pairs, counts = sift(comparisons, points)
    again, recounted = sift(other, points.sample(frac=1, random_state=seed))
    pd.testing.assert_frame_equal(pairs, again)
    assert counts == recounted


def test_the_list_of_losers_is_never_chosen_from_however_many_points_it_has() -> None:
    points = pd.DataFrame({"group": "g", "item": list("abcd"), "total": [1.0, 9.0, 3.0, 2.0]})
    comparisons = pd.DataFrame({"group": "g", "a": ["a", "c"], "b": ["b", "d"], "better": "a"})
    assert found(sift(comparisons, points)[0]) == [("g", "c", "d")]
    # The best of both lists, where the ranks name it.
    comparisons["better"] = ["b", "a"]
    assert found(sift(comparisons, points)[0]) == [("g", "b", "a")]


def test_points_that_are_written_as_text_are_compared_as_numbers() -> None:
    points = pd.DataFrame({"group": "g", "item": list("abcd"), "total": ["9", "2.5", "10", "2.25"]})
    comparisons = pd.DataFrame({"group": "g", "a": ["a", "c"], "b": ["b", "d"], "better": "a"})
    pairs, _ = sift(comparisons, points)
    assert found(pairs) == [("g", "c", "d")]
    assert pairs["margin"].tolist() == [7.75]


def clips() -> pd.DataFrame:
    """Eight clips of a prompt in two blocks of four."""
    total = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.5]
    table = pd.DataFrame({"video_id": list("abcdefgh"), "prompt_id": "p", "sample_index": range(8), "total": total})
    return table.assign(dim_x=table["total"] / 2, dim_y=-table["total"] / 2)


def ranked(*rows: str) -> pd.DataFrame:
    """Comparisons as ``a>b`` and ``c=d``."""
    better = ["a" if ">" in row else "tie" for row in rows]
    return pd.DataFrame(
        {
            "prompt_id": "p",
            "video_id_a": [row[0] for row in rows],
            "video_id_b": [row[2] for row in rows],
            "better": better,
        }
    )


def test_a_rule_keeps_to_groups_margins_and_numbers_and_counts_them() -> None:
    comparisons = ranked("b>a", "c>d", "f>e", "g>h")
    pairs, counts = RULES["sift"](clips(), comparisons, Limits(group_size=4))
    assert list(zip(pairs["winner_video_id"], pairs["loser_video_id"], strict=True)) == [("c", "a"), ("g", "e")]
    assert PreferencePairs.validate(pairs)["dim_x_gap"].tolist() == [1.0, 1.0]
    assert not pairs["dominates"].any()
    assert isinstance(counts, SiftCounts)
    # One number in all: equal margins in order of identifiers.
    pairs, counts = sift_clips(clips(), comparisons, Limits(group_size=4, max_pairs=1))
    assert (pairs["winner_video_id"].tolist(), counts.groups_over_number, counts.groups_without_pair) == (["c"], 1, 1)
    pairs, counts = sift_clips(clips(), comparisons, Limits(2.5, group_size=4))
    assert (len(pairs), counts.groups_below_margin) == (0, 2)
    # Without blocks the whole prompt is one group; more pairs a group are the next largest margins between the lists.
    pairs, _ = sift_clips(clips(), comparisons, Limits(max_pairs_per_prompt=3))
    assert (pairs["winner_video_id"] + pairs["loser_video_id"]).tolist() == ["ga", "fa", "gd"]
    chosen = select_pairs(clips(), "sift", comparisons=comparisons, group_size=4)
    pd.testing.assert_frame_equal(chosen, RULES["sift"](clips(), comparisons, Limits(group_size=4))[0])


def test_why_groups_give_no_pair() -> None:
    cycle = ranked("a>b", "b>c", "c>a", "e=f")
    assert sift_clips(clips(), cycle, Limits(group_size=4))[1].groups_undecided == 2
    disagreeing = sift_clips(clips(), ranked("a>b", "g>h"), Limits(group_size=4))[1]
    assert (disagreeing.groups_disagreeing, disagreeing.groups_without_pair) == (2, 2)
    assert sift_clips(clips(), ranked("b>a"), Limits(group_size=4))[1].groups_not_compared == 1
    missing = sift_clips(clips().iloc[1:], ranked("b>a", "c>b"), Limits())[1]
    assert (missing.comparisons, missing.comparisons_without_points, missing.selected) == (1, 1, 1)


@pytest.mark.parametrize(
    ("rows", "change", "limits", "message"),
    [
        (["b>a", "a>b"], {}, Limits(), "row 2.*compared twice: 'a' and 'b'"),
        (["b>b"], {}, Limits(), "compared with itself"),
        (["b>a", "d>e"], {}, Limits(group_size=4), "row 2.*outside their group: 'd' and 'e'"),
        (["b>a"], {"prompt_id": "other"}, Limits(), "outside their group"),
        (["b>a"], {"better": "first"}, Limits(), "is not one of a, b, tie"),
    ],
)
def test_comparisons_that_cannot_be(rows: list[str], change: dict[str, Any], limits: Limits, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sift_clips(clips(), ranked(*rows).assign(**change), limits)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"total": [1.0, float("nan")]}, "row 2, field 'total': the points of candidate 'b' are not finite"),
        ({"total": ["1", "good"]}, "not finite: good"),
        ({"item": ["a", "a"]}, "row 2, field 'item': candidate 'a' has points twice"),
    ],
)
def test_points_that_cannot_be(points: dict[str, Any], message: str) -> None:
    table = pd.DataFrame({"group": "g", "item": ["a", "b"], "total": [1.0, 2.0]}).assign(**points)
    with pytest.raises(InputError, match=message):
        sift(pd.DataFrame({"group": ["g"], "a": ["a"], "b": ["b"], "better": ["a"]}), table)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="the rule 'sift' needs comparisons"):
        select_pairs(clips(), "sift")
    with pytest.raises(InputError, match="field 'better': the comparisons have no column 'better'"):
        select_pairs(clips(), "sift", comparisons=ranked("a>b").drop(columns="better"))
    with pytest.raises(InputError, match="no column 'sample_index'"):
        select_pairs(clips().drop(columns="sample_index"), "sift", comparisons=ranked("a>b"), group_size=4)
    pairs, counts = sift(
        pd.DataFrame(columns=["group", "a", "b", "better"]), pd.DataFrame(columns=["group", "item", "total"])
    )
    assert (len(pairs), counts.groups, list(pairs.columns)) == (0, 0, ["group", "chosen", "rejected", "margin"])
