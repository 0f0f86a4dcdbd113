"""Splits: stable under change of the set, right shares, no near-duplicate across."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vr_pipeline.identifiers import prompt_id
from vr_pipeline.prompts.config import SplitParameters
from vr_pipeline.prompts.rouge import rouge_l_f1
from vr_pipeline.prompts.split import find_leaks, split_of, surplus

PROMPTS = st.lists(
    st.lists(st.sampled_from(["red", "blue", "ball", "cat", "runs", "sits", "far"]), min_size=1, max_size=6).map(
        " ".join
    ),
    max_size=40,
    unique=True,
)
HALVES = SplitParameters(test_fraction=0.3, validation_fraction=0.3, rouge_threshold=0.6, semantic_threshold=0.7)


def kept_with_splits(prompts: list[str], parameters: SplitParameters) -> dict[str, str]:
    splits = [split_of(prompt_id(prompt), parameters) for prompt in prompts]
    leaks = {leak.index for leak in find_leaks(prompts, splits, parameters)}
    return {
        prompt: split for index, (prompt, split) in enumerate(zip(prompts, splits, strict=True)) if index not in leaks
    }


def test_shares_are_as_configured() -> None:
    parameters = SplitParameters(test_fraction=0.2, validation_fraction=0.1)
    counts = Counter(split_of(prompt_id(f"prompt {number}"), parameters) for number in range(20_000))
    assert counts["test"] == pytest.approx(4000, abs=250)
    assert counts["validation"] == pytest.approx(2000, abs=200)
    assert set(counts) == {"test", "validation", "train"}


def test_another_validation_share_leaves_test_alone_and_another_salt_does_not() -> None:
    identifiers = [prompt_id(f"prompt {number}") for number in range(500)]

    def test_set(**options: float | str) -> set[str]:
        parameters = SplitParameters(test_fraction=0.2, **options)  # type: ignore[arg-type]
        return {identifier for identifier in identifiers if split_of(identifier, parameters) == "test"}

    assert test_set(validation_fraction=0.0) == test_set(validation_fraction=0.3)
    assert test_set(salt="a") != test_set(salt="b")


@settings(deadline=None, max_examples=60)
@given(PROMPTS, PROMPTS)
def test_new_prompts_move_no_old_one(prompts: list[str], more: list[str]) -> None:
    added = [prompt for prompt in more if prompt not in set(prompts)]
    before, after = kept_with_splits(prompts, HALVES), kept_with_splits(prompts + added, HALVES)
    assert before == {prompt: after[prompt] for prompt in prompts if prompt in after}
    # Wherever new prompts come in, what is in both stays in its split.
    front = kept_with_splits(added + prompts, HALVES)
    assert all(front[prompt] == split for prompt, split in before.items() if prompt in front)


@settings(deadline=None, max_examples=60)
@given(PROMPTS)
def test_no_similar_prompts_in_different_splits(prompts: list[str]) -> None:
    kept = kept_with_splits(prompts, HALVES)
    for (first, first_split), (second, second_split) in itertools.combinations(kept.items(), 2):
        assert first_split == second_split or rouge_l_f1(first, second) <= HALVES.rouge_threshold


def test_similar_by_meaning_is_a_leak_too() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1]], dtype=np.float32)
    leaks = find_leaks(["a", "b", "c", "d"], ["train", "train", "test", "test"], HALVES, vectors)
    assert [(leak.index, leak.nearest, leak.measure) for leak in leaks] == [(2, 1, "cosine")]
    assert leaks[0].similarity == pytest.approx(1.0)
    # The very first prompt can be the one that stays; places are those of all prompts, also where a text went before.
    vectors = np.array([[1, 0], [0, 1], [0, 1], [0.8, 0.6]], dtype=np.float32)
    leaks = find_leaks(["a", "b c", "b c", "d"], ["train", "train", "test", "test"], HALVES, vectors)
    assert [(leak.index, leak.nearest, leak.measure) for leak in leaks] == [(2, 1, "Rouge-L F1"), (3, 0, "cosine")]


def test_thresholds_of_one_switch_it_off() -> None:
    parameters = SplitParameters(rouge_threshold=1.0, semantic_threshold=1.0)
    vectors = np.array([[1, 0], [1, 0]], dtype=np.float32)
    assert find_leaks(["a b c", "a b c"], ["train", "test"], parameters, vectors) == []


@settings(deadline=None, max_examples=60)
@given(PROMPTS, st.integers(1, 12), st.data())
def test_training_prompts_are_drawn_by_lot_and_a_new_one_displaces_at_most_one(
    prompts: list[str], wanted: int, data: st.DataObject
) -> None:
    parameters = SplitParameters(test_fraction=0.2, validation_fraction=0.2, train_prompts=wanted)

    def train(texts: list[str]) -> set[str]:
        identifiers = [prompt_id(text) for text in texts]
        splits = [split_of(identifier, parameters) for identifier in identifiers]
        gone = surplus(identifiers, splits, parameters)
        assert {splits[index] for index in gone} <= {"train"}
        assert surplus(identifiers, splits, SplitParameters()) == []
        kept = {identifiers[index] for index in range(len(texts)) if splits[index] == "train" and index not in gone}
        assert len(kept) == min(wanted, splits.count("train"))
        return kept

    drawn = train(prompts)
    assert train(data.draw(st.permutations(prompts))) == drawn
    assert len(drawn - train([*prompts, "one more prompt of other words"])) <= 1


def test_fractions_must_leave_training_prompts() -> None:
    with pytest.raises(ValidationError, match="no training prompts"):
        SplitParameters(test_fraction=0.6, validation_fraction=0.4)
