"""Figures of a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.annotation.conftest import make_label

from vr_pipeline.annotation.agreement import (
    interval_words,
    policy_win_rate,
    preference_table,
    report_lines,
    study_results,
)
from vr_pipeline.annotation.store import Journal
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.preferences.journal import Label, Study
from vr_pipeline.schemas import HumanPreferences
from vr_pipeline.statistics.clustered import win_rate

BLIND = Study(study="original_vs_mpo", source="policies", policies=("original", "mpo"))


def answers(choices: str, annotator: str = "Ada", swap: str = "") -> list[Label]:
    """Answers to pairs 0, 1, ...: l, r, t or x; mpo stands left unless 's' says otherwise."""
    meaning = {"l": "left", "r": "right", "t": "tie", "x": "both_bad"}
    sides = {
        False: {"left": "m", "right": "o", "left_generator": "mpo", "right_generator": "original"},
        True: {"left": "o", "right": "m", "left_generator": "original", "right_generator": "mpo"},
    }
    return [
        make_label(
            k,
            label=f"{annotator}-label-{k}",
            annotator=annotator,
            prompt_id=f"prompt {k // 2}",
            choice=meaning[choice],
            **sides[k < len(swap) and swap[k] == "s"],
        )
        for k, choice in enumerate(choices)
    ]


def test_win_rates_know_the_sides_and_count_a_pair_once() -> None:
    labels = [*answers("llrtxl", swap="-s----"), *answers("lrrlxl", annotator="Bob")]
    # Mean votes for mpo by pair: 1, (-1 - 1) / 2, -1, (0 + 1) / 2, 0, 1: three won, one tied, two lost.
    rate = policy_win_rate(preference_table(labels, "overall"), "mpo")
    assert (rate["wins"], rate["ties"], rate["losses"], rate["pairs"]) == (3, 1, 2, 6)
    expected = win_rate([1, -1, -1, 1, 0, 1], ["0", "0", "1", "1", "2", "2"])
    assert rate["rate"] == expected.rate
    assert (rate["ci_low"], rate["no_interval"]) == (None, "3 prompts; an interval needs 5")
    other = policy_win_rate(preference_table(labels, "overall"), "original")
    assert other["rate"] == pytest.approx(1 - rate["rate"])
    assert (other["wins"], other["losses"]) == (rate["losses"], rate["wins"])


def test_five_annotators_are_drawn_like_the_prompts() -> None:
    choices = ["llllllllrr", "rlrlllrllr", "llrrllrrlr", "llllrlllrl", "rrlllrllll"]
    labels = [label for k in range(5) for label in answers(choices[k], annotator=f"person {k}")]
    five = policy_win_rate(preference_table(labels, "overall"), "mpo")
    four = policy_win_rate(preference_table([row for row in labels if row.annotator != "person 4"], "overall"), "mpo")
    assert (four["about"], five["about"]) == ("these annotators", "people")
    assert "for people" in interval_words(five)
    # The jackknife by hand: the share of pairs won by the mean vote, without each person in turn.
    votes = np.array([[1 if choice == "l" else -1 for choice in row] for row in choices])
    sign = 1 if five["rate"] > 0.5 else -1
    rates = [(np.sign(np.delete(votes, k, axis=0).mean(axis=0)) * sign / 2 + 0.5).mean() for k in range(5)]
    mean = votes.mean(axis=0) * sign
    expected = win_rate(mean, [str(k // 2) for k in range(10)], crossed=(4 * np.var(rates), 5))
    assert (five["ci_low"], five["ci_high"]) == pytest.approx((expected.ci_low, expected.ci_high))


def test_results_of_a_study() -> None:
    labels = [*answers("llrt"), *answers("ll", annotator="Bob"), make_label(9, criterion="quality", choice="both_bad")]
    results = study_results(BLIND, labels, ["quality", "overall"], 10)
    ada, bob = results["annotators"]
    assert (results["pairs"], results["pairs_answered"]) == (10, 5)
    assert (ada["annotator"], ada["answers"], ada["pairs"], ada["left_share"]) == ("Ada", 5, 0, pytest.approx(2 / 3))
    assert (bob["annotator"], bob["left_share"], bob["median_seconds"]) == ("Bob", 1.0, 1.5)
    quality, overall = results["criteria"]
    assert quality["choices"] == {"left": 0, "right": 0, "tie": 0, "both_bad": 1}
    assert overall["agreement"]["pairs_with_several"] == 2
    assert overall["agreement"]["raw_agreement"] == 1.0
    text = "\n".join(report_lines(results))
    for part in ("Ada", "mpo wins", "no interval: 2 prompts", "both bad 1", "agree in 100%"):
        assert part in text


def test_answers_by_criterion_stand_beside_the_preference(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, Study(study="mine", source="generated"))
    turned = {"left": "two", "right": "one"}  # a server that was started again may show the other side
    asked = [
        make_label(0, label="visual-0", criterion="visual", choice="right", **turned),
        make_label(0, label="motion-0", criterion="motion", choice="skip"),
        make_label(0, choice="right"),
        make_label(1, label="visual-1", criterion="visual", choice="both_bad"),
        make_label(1, choice="left"),
        make_label(1, label="visual-2", criterion="visual", choice="right", annotator="Bob"),
        make_label(1, label="bob-whole-1", choice="tie", annotator="Bob"),
    ]
    for label in asked:
        journal.add(label)
    journal.close()
    table = HumanPreferences.validate(read_preferences(path, "annotations"))
    assert list(table["preference"]) == ["b", "a", "tie"]
    assert list(table["preference_visual"]) == ["a", "tie", "b"]
    assert table["preference_motion"].isna().all()
    assert table.attrs["skipped"] == 4
    assert list(read_preferences(path, "annotations", criterion="visual")["preference"]) == ["b", "tie", "b"]
    # What the new columns add changes nothing else.
    (tmp_path / "whole.jsonl").write_text("".join(line for line in path.open() if '"visual"' not in line))
    whole = read_preferences(tmp_path / "whole.jsonl", "annotations")
    assert whole.drop(columns="preference_motion").equals(table[whole.columns.drop("preference_motion")])

    results = study_results(Study(study="mine", source="generated"), asked, ["visual", "motion", "overall"])
    motion = results["criteria"][1]
    assert (motion["answers"], motion["skipped"]) == (0, 1)
    assert "motion: 0 answers (left 0, right 0, tie 0, both bad 0, skipped 1)" in report_lines(results)
    assert results["annotators"][0]["pairs"] == 1  # a question that was skipped is done with


def test_answers_are_preferences(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, Study(study="mine", source="generated"))
    for label in [*answers("lrtx"), make_label(7, criterion="quality", choice="right")]:
        journal.add(label)
    table = read_preferences(path, "annotations")
    HumanPreferences.validate(table)
    assert list(table["preference"]) == ["a", "b", "tie", "tie"]
    assert list(table["both_bad"]) == [False, False, False, True]
    assert set(table["source"]) == {"annotations mine"}
    assert list(table["video_path_a"]) == ["one.mp4"] * 4
    assert list(table["generator_a"]) == ["mpo"] * 4
    assert list(read_preferences(path, "annotations", criterion="quality")["preference"]) == ["b"]
    journal.undo("Ada", at="now")
    journal.undo("Ada", at="now")
    assert len(read_preferences(path, "annotations")) == 3
    journal.close()
