"""Which pairs are compared: their number, no pair twice, partners in turn, and what must not matter."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vr_pipeline.pairs.config import PairRankingParameters
from vr_pipeline.pairs.schedule import scheduled_pairs


def clips(sizes: list[int], failed: tuple[int, ...] = ()) -> pd.DataFrame:
    rows = [
        {"video_id": f"{(7 * n) % 10}-{p}-{n}", "prompt_id": f"p{p}", "sample_index": n, "status": "ok"}
        for p, size in enumerate(sizes)
        for n in range(size)
    ]
    return pd.DataFrame(rows).assign(status=["failed" if i in failed else "ok" for i in range(len(rows))])


def pairs_of(table: pd.DataFrame) -> list[frozenset[str]]:
    return [frozenset(pair) for pair in zip(table["video_id_a"], table["video_id_b"], strict=True)]


def test_neighbours_are_samples_of_a_block_and_failed_clips_have_no_place() -> None:
    table = scheduled_pairs(clips([5, 4]), PairRankingParameters(), None)
    samples = [(a[-1], b[-1]) for a, b in zip(table["video_id_a"], table["video_id_b"], strict=True)]
    assert samples == [("0", "1"), ("2", "3"), ("0", "1"), ("2", "3")]
    table = scheduled_pairs(clips([5], failed=(1,)), PairRankingParameters(), None)
    assert [(a[-1], b[-1]) for a, b in zip(table["video_id_a"], table["video_id_b"], strict=True)] == [
        ("0", "2"),
        ("3", "4"),
    ]
    assert len(scheduled_pairs(clips([9]), PairRankingParameters(), 3)) == 3
    assert scheduled_pairs(clips([1]), PairRankingParameters(), None).empty


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    number=st.one_of(st.none(), st.integers(1, 40)),
    seed=st.integers(0, 9),
    order=st.integers(0, 99),
)
def test_random_partners_come_in_rounds_and_depend_on_nothing_but_names_and_seed(
    sizes: list[int], number: int | None, seed: int, order: int
) -> None:
    index = clips(sizes)
    parameters = PairRankingParameters(pairs="random", number=number, seed=seed)
    table = scheduled_pairs(index, parameters, None)
    pd.testing.assert_frame_equal(table, scheduled_pairs(index.sample(frac=1, random_state=order), parameters, None))
    alone = scheduled_pairs(index[index["prompt_id"] == "p0"], parameters, None)
    pd.testing.assert_frame_equal(table[table["prompt_id"] == "p0"].reset_index(drop=True), alone)
    for p, size in enumerate(sizes):
        names = index.loc[index["prompt_id"] == f"p{p}", "video_id"].tolist()
        found = pairs_of(table[table["prompt_id"] == f"p{p}"])
        every = {frozenset(pair) for pair in combinations(names, 2)}
        assert len(set(found)) == len(found) == min(size // 2 if number is None else number, len(every))
        assert set(found) <= every
        # No clip is compared twice more often than another; where one sits out a round, three times.
        often = Counter(name for pair in found for name in pair)
        counts = [often[name] for name in names]
        assert max(counts) - min(counts) <= (1 if size % 2 == 0 else 2)


def test_all_pairs_and_another_seed() -> None:
    index = clips([6])
    every = scheduled_pairs(index, PairRankingParameters(pairs="all"), None)
    assert len(every) == 15
    random = scheduled_pairs(index, PairRankingParameters(pairs="random", number=99), None)
    pd.testing.assert_frame_equal(every, random)
    drawn = {
        frozenset(pairs_of(scheduled_pairs(index, PairRankingParameters(pairs="random", seed=seed), None)))
        for seed in range(8)
    }
    assert len(drawn) > 3
    assert len(scheduled_pairs(index, PairRankingParameters(pairs="all"), 3)) == 6


def test_a_number_goes_with_random_pairs_only() -> None:
    with pytest.raises(ValidationError, match="number needs pairs: random, not all"):
        PairRankingParameters(pairs="all", number=3)
