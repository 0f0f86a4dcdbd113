"""Rouge-L against the rouge-score package, and the fast scan against the plain one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from vr_pipeline.prompts import rouge, rouge_join
from vr_pipeline.prompts.rouge import greedy_rouge_filter, greedy_rouge_scan, nearest_rouge_l, rouge_l_f1

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
VOCABULARY = "a the red blue ball cat dog runs jumps over on in fast slow Moon 2 x"
WORDS = st.sampled_from(VOCABULARY.split())
SMALL_PROMPTS = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=40)
THRESHOLDS = st.one_of(
    st.floats(0.01, 1.0),
    # Thresholds that some F1 meets exactly, where one wrong rounding would decide otherwise.
    st.tuples(st.integers(1, 9), st.integers(2, 18)).map(lambda pair: min(1.0, 2 * pair[0] / pair[1])),
)


def reference_f1(a: str, b: str) -> float:
    return float(SCORER.score(a, b)["rougeL"].fmeasure)


def reference_filter(prompts: Sequence[str], threshold: float) -> list[int]:
    kept: list[int] = []
    for index, prompt in enumerate(prompts):
        if not any(reference_f1(prompts[other], prompt) > threshold for other in kept):
            kept.append(index)
    return kept


@given(st.text(max_size=60), st.text(max_size=60))
def test_equals_rouge_score_on_any_text(a: str, b: str) -> None:
    assert rouge_l_f1(a, b) == reference_f1(a, b)


@given(st.lists(WORDS, max_size=12).map(" ".join), st.lists(WORDS, max_size=12).map(" ".join))
def test_equals_rouge_score_on_words_and_is_symmetric(a: str, b: str) -> None:
    assert rouge_l_f1(a, b) == reference_f1(a, b) == rouge_l_f1(b, a)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's 4K-ready, café!", ["it", "s", "4k", "ready", "caf"]),
        ("\u212aELVIN İstanbul", ["kelvin", "i", "stanbul"]),
        ("日本語", []),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert rouge.tokenize(text) == tokens


@settings(max_examples=150, deadline=None)
@given(SMALL_PROMPTS, THRESHOLDS)
def test_filter_equals_plain_scan(prompts: list[str], threshold: float) -> None:
    assert greedy_rouge_filter(prompts, threshold) == reference_filter(prompts, threshold)


@settings(max_examples=60, deadline=None)
@given(SMALL_PROMPTS, THRESHOLDS, st.integers(1, 5), st.integers(1, 30))
def test_filter_does_not_depend_on_how_the_work_is_cut(
    prompts: list[str], threshold: float, chunk: int, postings: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge, "FIRST_CHUNK", chunk)
        patch.setattr(rouge, "LARGEST_CHUNK", 2 * chunk)
        patch.setattr(rouge_join, "POSTINGS_AT_A_TIME", postings)
        assert greedy_rouge_filter(prompts, threshold) == reference_filter(prompts, threshold)


@settings(max_examples=100, deadline=None)
@given(SMALL_PROMPTS, st.floats(0.05, 0.99))
def test_every_drop_is_explained_by_the_best_kept_prompt(prompts: list[str], threshold: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge, "FIRST_CHUNK", 4)
        scan = greedy_rouge_scan(prompts, threshold)
    kept = set(scan.kept.tolist())
    seen: dict[tuple[str, ...], int] = {}
    for index, prompt in enumerate(prompts):
        first = seen.setdefault(tuple(rouge.tokenize(prompt)), index)
        if index in kept:
            assert scan.nearest[index] == -1
            assert np.isnan(scan.similarity[index])
            continue
        nearest = int(scan.nearest[index])
        assert nearest in kept
        assert nearest < index
        assert scan.similarity[index] == rouge_l_f1(prompts[nearest], prompt) > threshold
        if first == index:
            best = max(rouge_l_f1(prompts[other], prompt) for other in kept if other < index)
            assert scan.similarity[index] == best


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.lists(WORDS, max_size=8).map(" ".join), st.sampled_from("ab")), max_size=30), THRESHOLDS)
def test_groups_compare_only_across(labelled: list[tuple[str, str]], threshold: float) -> None:
    prompts, groups = [text for text, _ in labelled], [group for _, group in labelled]
    kept: list[int] = []
    for index, prompt in enumerate(prompts):
        others = [other for other in kept if groups[other] != groups[index]]
        if not any(reference_f1(prompts[other], prompt) > threshold for other in others):
            kept.append(index)
    assert greedy_rouge_scan(prompts, threshold, groups=groups).kept.tolist() == kept


def test_the_threshold_is_the_papers_unless_another_is_given() -> None:
    prompts = ["a b c d e f", "a b c d x y", "a b c d e z"]
    assert greedy_rouge_filter(prompts) == greedy_rouge_filter(prompts, 0.7) == [0, 1]
    assert greedy_rouge_scan(prompts).kept.tolist() == [0, 1]


def test_keeps_everything_at_threshold_one() -> None:
    assert greedy_rouge_filter(["a b", "a b", ""], 1.0) == [0, 1, 2]


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, float("nan")])
def test_rejects_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        greedy_rouge_filter(["a", "b"], threshold)


def test_accepts_no_prompts_and_prompts_without_tokens() -> None:
    assert greedy_rouge_filter([], 0.5) == []
    assert greedy_rouge_filter(["日本", "日本", "!!"], 0.5) == [0, 1, 2]


def test_very_long_prompt_beside_short_ones() -> None:
    long = " ".join(f"w{number}" for number in range(40_000))
    assert greedy_rouge_filter([long, "w1 w2", long + " more", "w1 w2 w3"], 0.7) == [0, 1]


def test_many_repetitions_stay_cheap() -> None:
    prompts = [f"red ball moves {'left' if index % 2 else 'right'} on black" for index in range(20_000)]
    assert greedy_rouge_filter(prompts, 0.7) == [0]
    assert greedy_rouge_filter(prompts, 0.9) == [0, 1]


def test_integers_stand_in_where_characters_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = ["a b c d", "a b c e", "x y", "x y z"]
    expected = reference_filter(prompts, 0.7)
    as_strings = rouge_join.as_strings
    monkeypatch.setattr(rouge_join, "as_strings", lambda sequences, _: as_strings(sequences, 0x110000))
    assert greedy_rouge_filter(prompts, 0.7) == expected


@given(st.lists(st.lists(WORDS, max_size=7).map(" ".join), min_size=2, max_size=15))
@settings(deadline=None, max_examples=50)
def test_nearest_is_the_largest_f1(prompts: list[str]) -> None:
    found = nearest_rouge_l(np.arange(len(prompts)), prompts)
    for index, prompt in enumerate(prompts):
        best = max(rouge_l_f1(prompt, other) for position, other in enumerate(prompts) if position != index)
        assert found[index] == pytest.approx(best)


def matrix_filter(prompts: Sequence[str], threshold: float) -> list[int]:
    """The plain scan on the full matrix of F1 values, for more prompts than rouge-score has time for."""
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    tokens = [rouge.tokenize(prompt) for prompt in prompts]
    lengths = np.array([max(len(part), 1) for part in tokens])
    lcs = cdist(tokens, tokens, scorer=LCSseq.similarity, dtype=np.int32, workers=2)
    precision, recall = lcs / lengths[:, None], lcs / lengths[None, :]
    with np.errstate(invalid="ignore"):
        above = np.nan_to_num(2 * precision * recall / (precision + recall)) > threshold
    kept: list[int] = []
    for index in range(len(prompts)):
        if not above[index, kept].any():
            kept.append(index)
    return kept


@pytest.mark.real_data
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_real_prompts_against_rouge_score(real_prompts: list[str], threshold: float) -> None:
    prompts = real_prompts[:200]
    assert greedy_rouge_filter(prompts, threshold) == reference_filter(prompts, threshold)


@pytest.mark.real_data
@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.5, 0.6, 2 / 3, 0.7, 0.8, 0.95])
def test_real_prompts_against_the_full_matrix(real_prompts: list[str], threshold: float) -> None:
    prompts = real_prompts[:2000]
    assert greedy_rouge_filter(prompts, threshold) == matrix_filter(prompts, threshold)
