"""Choice of pairs against a brute force in plain Python, and what must not matter."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.pairs.candidates import Limits, largest_margins
from vr_pipeline.pairs.report import pair_selection_report
from vr_pipeline.pairs.rules import RULES
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.schemas import PreferencePairs


def brute_force(
    rewards: pd.DataFrame,
    strategy: str,
    min_margin: float,
    cap: int | None,
    group_size: int | None,
    dominance_tolerance: float,
) -> tuple[list[tuple[str, str]], Counter[str]]:
    """Winners and losers, and the fate of every candidate."""
    tolerance = 1e-9
    groups: dict[tuple[str, int], list[Any]] = {}
    for clip in rewards.itertuples():
        block = clip.sample_index // group_size if group_size else 0
        groups.setdefault((clip.prompt_id, block), []).append(clip)
    result: list[tuple[str, str]] = []
    fates: Counter[str] = Counter(clips=len(rewards), groups=len(groups), selected_dominating=0)
    level = rewards.groupby("prompt_id")[["dim_x", "dim_y", "dim_z"]].mean()
    for key in sorted(groups):
        candidates = []
        for one, other in combinations(groups[key], 2):
            fates["candidates"] += 1
            winner, loser = (one, other) if one.total > other.total else (other, one)
            margin = winner.total - loser.total
            dominates = all(
                getattr(winner, name) - getattr(loser, name) >= -dominance_tolerance
                for name in ("dim_x", "dim_y", "dim_z")
            )
            if margin <= tolerance:
                fates["tied"] += 1
            elif (strategy == "mpo" and not dominates) or (
                strategy == "bounded"
                and any(
                    getattr(winner, name) < level.loc[key[0], name] - max(dominance_tolerance, tolerance)
                    for name in ("dim_x", "dim_y", "dim_z")
                )
            ):
                fates["rejected_by_rule"] += 1
            elif margin < min_margin - tolerance:
                fates["below_margin"] += 1
            else:
                candidates.append((-round(margin, 9), winner.video_id, loser.video_id, dominates))
        kept = sorted(candidates)[:cap]
        result += [(winner, loser) for _, winner, loser, _ in kept]
        fates["over_cap"] += len(candidates) - len(kept)
        fates["selected"] += len(kept)
        fates["selected_dominating"] += sum(dominates for *_, dominates in kept)
        fates["selected_not_dominating"] += sum(not dominates for *_, dominates in kept)
        fates["groups_without_pair"] += not kept
    return result, fates


@st.composite
def reward_tables(draw: st.DrawFn) -> pd.DataFrame:
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    grid = draw(st.sampled_from([0.1, 0.25, 1 / 3]))  # 0.1 and 1/3 make float noise, small grids make ties
    rows = []
    for prompt, size in enumerate(sizes):
        for sample in range(size):
            values = [draw(st.integers(-2, 2)) * grid for _ in range(3)]
            # Summed in another order for every clip: equal sums differ in the last digits.
            order = draw(st.permutations(range(3)))
            rows.append(
                {
                    "video_id": f"v{draw(st.integers(0, 9))}-{prompt}-{sample}",
                    "prompt_id": f"p{9 - prompt}",
                    "sample_index": sample,
                    "dim_x": values[0],
                    "dim_y": values[1],
                    "dim_z": values[2],
                    "total": values[order[0]] + values[order[1]] + values[order[2]],
                }
            )
    return pd.DataFrame(rows)


@given(
    rewards=reward_tables(),
    strategy=st.sampled_from(["mpo", "dpo", "bounded"]),
    min_margin=st.sampled_from([0.0, 0.1, 0.3, 1.0]),
    cap=st.sampled_from([None, 1, 2, 5]),
    group_size=st.sampled_from([None, 2, 4]),
    slack=st.sampled_from([1e-9, 0.15]),
)
def test_equals_brute_force(
    rewards: pd.DataFrame, strategy: Any, min_margin: float, cap: int | None, group_size: int | None, slack: float
) -> None:
    pairs, counts = RULES[strategy](rewards, None, Limits(min_margin, cap, group_size, slack))
    expected, fates = brute_force(rewards, strategy, min_margin, cap, group_size, slack)
    assert list(zip(pairs["winner_video_id"], pairs["loser_video_id"], strict=True)) == expected
    assert counts.to_json() == {name: fates[name] for name in counts.to_json()}
    if strategy == "mpo":
        assert pairs["dominates"].all()
    by_id = rewards.set_index("video_id")
    for pair in pairs.itertuples():
        assert by_id.loc[pair.winner_video_id, "prompt_id"] == by_id.loc[pair.loser_video_id, "prompt_id"]
        gaps = [pair.dim_x_gap, pair.dim_y_gap, pair.dim_z_gap]
        assert sum(gaps) == pytest.approx(pair.margin)
        assert pair.dominates == all(gap >= -slack for gap in gaps)
    PreferencePairs.validate(pairs)


@given(rewards=reward_tables(), number=st.integers(0, 12), cap=st.sampled_from([None, 1, 2]))
def test_a_number_in_all_keeps_the_largest_margins_and_counts_the_others(
    rewards: pd.DataFrame, number: int, cap: int | None
) -> None:
    whole, before = RULES["dpo"](rewards, None, Limits(max_pairs_per_prompt=cap))
    pairs, counts = RULES["dpo"](rewards, None, Limits(max_pairs_per_prompt=cap, max_pairs=number))
    pd.testing.assert_frame_equal(pairs, largest_margins(whole, number))
    fates = counts.to_json()
    assert fates["over_number"] == len(whole) - len(pairs)
    assert fates["selected"] == len(pairs) == fates["selected_dominating"] + fates["selected_not_dominating"]
    names = ("tied", "rejected_by_rule", "below_margin", "over_cap", "over_number", "selected")
    assert fates["candidates"] == before.candidates == sum(fates[name] for name in names)
    # Without blocks a group is a prompt.
    assert fates["groups_without_pair"] == rewards["prompt_id"].nunique() - pairs["prompt_id"].nunique()


@given(rewards=reward_tables(), seed=st.integers(0, 100))
def test_order_of_rows_does_not_matter(rewards: pd.DataFrame, seed: int) -> None:
    shuffled = rewards.sample(frac=1, random_state=seed)
    for strategy in ("mpo", "dpo"):
        pd.testing.assert_frame_equal(
            select_pairs(rewards, strategy, max_pairs_per_prompt=2),
            select_pairs(shuffled, strategy, max_pairs_per_prompt=2),
        )


def test_float_noise_breaks_neither_dominance_nor_ties() -> None:
    noisy = 0.1 + 0.2  # 0.30000000000000004
    rewards = pd.DataFrame(
        {
            "video_id": ["a", "b", "c"],
            "prompt_id": "p",
            "dim_x": [0.3, noisy, noisy],
            "dim_y": [1.0, 0.0, 0.0],
            "total": [1.3, noisy, 0.3],
        }
    )
    pairs, counts = RULES["mpo"](rewards, None, Limits(max_pairs_per_prompt=None))
    assert list(zip(pairs["winner_video_id"], pairs["loser_video_id"], strict=True)) == [("a", "b"), ("a", "c")]
    assert counts.tied == 1
    assert len(select_pairs(rewards, "mpo", min_margin=1.0, max_pairs_per_prompt=None)) == 2


def test_one_prompt_with_very_many_clips_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rewards = pd.DataFrame(rng.normal(size=(40, 3)), columns=["dim_x", "dim_y", "dim_z"])
    rewards = rewards.assign(total=rewards.sum(axis=1), video_id=[f"{i:02d}" for i in range(40)], prompt_id="p")
    whole = select_pairs(rewards, "mpo", max_pairs_per_prompt=None)
    monkeypatch.setattr("vr_pipeline.pairs.candidates._PAIRS_AT_A_TIME", 7)
    pd.testing.assert_frame_equal(select_pairs(rewards, "mpo", max_pairs_per_prompt=None), whole)


def test_nothing_to_pair_gives_an_empty_table_with_all_columns() -> None:
    rewards = pd.DataFrame({"video_id": ["a"], "prompt_id": ["p"], "total": [1.0], "dim_x": [1.0]})
    for table in (rewards, rewards.iloc[:0]):
        pairs = select_pairs(table, "mpo")
        assert list(pairs.columns) == [
            "prompt_id",
            "winner_video_id",
            "loser_video_id",
            "margin",
            "dominates",
            "dim_x_gap",
        ]
        assert len(PreferencePairs.validate(pairs)) == 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"total": [1.0, np.nan]}, {}, "row 2, field 'total': the reward of video 'b'"),
        ({"dim_x": [np.inf, 1.0]}, {}, "row 1, field 'dim_x'"),
        ({"video_id": ["a", "a"]}, {}, "occurs twice"),
        ({}, {"rule": "best"}, "unknown rule 'best'"),
        ({}, {"min_margin": -1.0}, "margin is negative"),
        ({}, {"max_pairs_per_prompt": 0}, "it allows no pairs"),
        ({}, {"group_size": 1}, "fewer than two"),
        ({}, {"group_size": 2}, "no column 'sample_index'"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    rewards = pd.DataFrame({"video_id": ["a", "b"], "prompt_id": "p", "total": [1.0, 2.0], "dim_x": [1.0, 2.0]}).assign(
        **change
    )
    with pytest.raises(InputError, match=message):
        select_pairs(rewards, **{"rule": "dpo", **options})


def test_report_compares_at_matched_numbers() -> None:
    rng = np.random.default_rng(1)
    rewards = pd.DataFrame(rng.normal(size=(400, 3)), columns=["dim_x", "dim_y", "dim_z"])
    rewards = rewards.assign(
        total=rewards.sum(axis=1),
        video_id=[f"{i:03d}" for i in range(400)],
        prompt_id=[f"p{i // 4}" for i in range(400)],
    )
    selections = {}
    for name in ("dpo", "mpo"):
        pairs, counts = RULES[name](rewards, None, Limits())
        selections[name] = (pairs, counts.to_json())
    report = pair_selection_report(selections)
    assert report["strategies"]["mpo"]["not_dominating"] == 0
    n = min(report["strategies"][name]["n"] for name in ("dpo", "mpo"))
    for name in ("dpo", "mpo"):
        margins = np.sort(selections[name][0]["margin"])[::-1]
        assert report["matched"][name]["n"] == n
        assert report["matched"][name]["margin"] == margins[n - 1]


@given(
    rows=st.lists(st.tuples(st.sampled_from("zyxwv"), st.sampled_from("54321"), st.integers(0, 3)), max_size=30),
    number=st.integers(0, 31),
)
def test_largest_margins_are_taken_in_order_of_identifiers_and_keep_their_place(
    rows: list[tuple[str, str, int]], number: int
) -> None:
    rows = list({row[:2]: row for row in rows}.values())
    table = pd.DataFrame(rows, columns=["winner_video_id", "loser_video_id", "margin"])
    # Float noise does not decide between equal margins.
    table["margin"] = table["margin"] * 0.1 + np.arange(len(table)) * 1e-12
    best = sorted(range(len(rows)), key=lambda at: (-rows[at][2], rows[at][0], rows[at][1]))[:number]
    pd.testing.assert_frame_equal(largest_margins(table, number), table.iloc[sorted(best)].reset_index(drop=True))
