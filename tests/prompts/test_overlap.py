"""Prompts that are tested on and trained on: by brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.identifiers import prompt_id
from vr_pipeline.prompts.overlap import prompt_overlaps
from vr_pipeline.prompts.rouge import rouge_l_f1

words = st.lists(st.sampled_from(["a", "red", "blue", "fox", "dog", "runs", "fast"]), min_size=1, max_size=6).map(
    " ".join
)


@given(st.lists(words, max_size=6), st.lists(words, max_size=6), st.sampled_from([0.3, 0.5, 0.7, 0.9]))
def test_overlaps_are_those_of_comparing_all(tested: list[str], trained: list[str], threshold: float) -> None:
    table = prompt_overlaps({"test": tested}, {"weights": trained}, threshold=threshold)
    found = {row["prompt_id"]: row for row in table.to_dict("records")}
    known = {prompt_id(one) for one in trained}
    for prompt in tested:
        key = prompt_id(prompt)
        best = max((rouge_l_f1(prompt, other) for other in trained), default=0.0)
        if key in known:
            assert found[key]["kind"] == "exact"
            assert found[key]["similarity"] == 1.0
        elif best > threshold:
            assert found[key]["kind"] == "near"
            assert abs(found[key]["similarity"] - best) < 1e-12
            assert abs(rouge_l_f1(prompt, found[key]["nearest_prompt"]) - best) < 1e-12
        else:
            assert key not in found
    assert len(found) == len(table), "a prompt stands once"


def test_case_and_order_do_not_matter_and_sets_can_be_skipped() -> None:
    tested, trained = {"test": ["A red Fox"], "validation": ["x"]}, {"weights": ["a red fox"], "policies": ["x"]}
    table = prompt_overlaps(tested, trained, skip=frozenset({("validation", "policies")}))
    assert table[["tested", "trained", "kind"]].to_numpy().tolist() == [["test", "weights", "exact"]]
    assert not len(prompt_overlaps({"test": []}, {"weights": []}))
    assert not len(prompt_overlaps({"test": ["!!!"]}, {"weights": ["???"]}))
