"""Pairs, their order and their sides."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.annotation.conftest import make_index

from vr_pipeline.annotation.queue import named_pairs, ordered, pairs_of_prompts, policy_pairs, with_margins
from vr_pipeline.errors import InputError


def test_pairs_are_of_one_prompt_and_usable_and_each_once() -> None:
    index = make_index(prompts=4, clips=4)
    index.loc[0, "status"] = "failed"
    pairs = pairs_of_prompts(index, per_prompt=None, seed=0)
    assert len(pairs) == 3 + 3 * 6
    assert len({pair.pair_id for pair in pairs}) == len(pairs)
    prompt_of = dict(zip(index["video_id"], index["prompt_id"], strict=True))
    for pair in pairs:
        assert prompt_of[pair.first.video_id] == prompt_of[pair.second.video_id] == pair.prompt_id
        assert "clip-0-0" not in (pair.first.video_id, pair.second.video_id)
    limited = pairs_of_prompts(index, per_prompt=2, seed=0)
    assert len(limited) == 8
    assert {pair.pair_id for pair in limited} <= {pair.pair_id for pair in pairs}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shuffle=st.integers(0, 100))
def test_order_and_sides_depend_on_the_seed_and_not_on_the_table(seed: int, shuffle: int) -> None:
    index = make_index(prompts=3, clips=4)
    mixed = index.sample(frac=1, random_state=shuffle)
    first = ordered(pairs_of_prompts(index, per_prompt=5, seed=seed), "random", seed=seed, limit=12)
    second = ordered(pairs_of_prompts(mixed, per_prompt=5, seed=seed), "random", seed=seed, limit=12)
    assert first == second
    assert [pair.sides("Ada", seed) for pair in first] == [pair.sides("Ada", seed) for pair in second]
    # Every prompt has its turn before one comes again.
    assert all(len({pair.prompt_id for pair in first[k : k + 3]}) == 3 for k in range(0, 12, 3))


def test_sides_are_even_and_differ_between_annotators() -> None:
    pairs = pairs_of_prompts(make_index(prompts=40, clips=5), per_prompt=None, seed=0)
    swapped = {name: [pair.sides(name, 3)[0] is pair.second for pair in pairs] for name in ("Ada", "Bob")}
    for sides in swapped.values():
        assert 0.4 < sum(sides) / len(sides) < 0.6
    same = sum(a == b for a, b in zip(swapped["Ada"], swapped["Bob"], strict=True)) / len(pairs)
    assert 0.4 < same < 0.6


def test_smallest_margins_come_first_and_pairs_without_information_last() -> None:
    index = make_index(prompts=1, clips=4)
    rewards = pd.DataFrame(
        {
            "video_id": index["video_id"],
            "prompt_id": index["prompt_id"],
            "total": [1.0, 1.0, 1.0, 4.0],
            "dim_x": [1.0, 1.0, 0.0, 3.0],
            "dim_y": [0.0, 0.0, 1.0, 1.0],
        }
    )
    pairs = with_margins(pairs_of_prompts(index, per_prompt=None, seed=0), rewards)
    shown = ordered(pairs, "informative", seed=0, limit=None)
    names = [{pair.first.video_id[-1], pair.second.video_id[-1]} for pair in shown]
    assert names[-1] == {"0", "1"}  # the same in every dimension: whoever is chosen, the weights cannot learn from it
    assert {frozenset(pair) for pair in names[:2]} == {frozenset("02"), frozenset("12")}
    assert [pair.margin for pair in shown] == [0, 0, 3, 3, 3, None]
    with pytest.raises(InputError, match="has no reward"):
        with_margins(pairs, rewards.head(2))


def test_policies_are_compared_on_the_same_prompt_and_seed() -> None:
    index = make_index(prompts=2, clips=3, policies=("original", "mpo", "dpo"))
    pairs = policy_pairs(index, ("original", "mpo"))
    assert len(pairs) == 6
    for pair in pairs:
        assert {pair.first.generator, pair.second.generator} == {"original", "mpo"}
        assert pair.first.video_id.split("-", 1)[1] == pair.second.video_id.split("-", 1)[1]
    for wrong, message in ((("original", "sft"), "original"), (("mpo", "mpo"), "itself")):
        with pytest.raises(InputError, match=message):
            policy_pairs(index, wrong)
    with pytest.raises(InputError, match="same prompt and seed"):
        policy_pairs(
            index[(index["policy"] == "mpo") | (index["sample_index"] > 5)].assign(
                policy=lambda table: ["mpo"] * 3 + ["original"] * 3
            ),
            ("original", "mpo"),
        )


def test_pairs_people_compared_are_taken_once_whichever_way_round() -> None:
    index = make_index(prompts=2, clips=2)
    preferences = pd.DataFrame(
        {
            "video_id_a": ["clip-0-0", "clip-0-1", "clip-1-0", "clip-1-0"],
            "video_id_b": ["clip-0-1", "clip-0-0", "clip-1-1", "gone"],
        }
    )
    assert [(pair.first.video_id, pair.second.video_id) for pair in named_pairs(index, preferences)] == [
        ("clip-0-0", "clip-0-1"),
        ("clip-1-0", "clip-1-1"),
    ]
