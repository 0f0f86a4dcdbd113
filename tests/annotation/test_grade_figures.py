"""Figures of grades: consistency against brute force, disputes, and who is too fast."""

from __future__ import annotations

from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.annotation.graded import CHECKLIST, NAMES, STUDY, make_grade

from vr_pipeline.annotation.grade_figures import (
    consistency_words,
    grade_report_lines,
    grade_results,
)
from vr_pipeline.annotation.guide import GradingGuide, load_guide
from vr_pipeline.checklist import load_checklist
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import Grade
from vr_pipeline.statistics.clustered import interval

ROOT = Path(__file__).resolve().parents[2]


def table(rows: list[tuple[str, str, str, str]], **changes: object) -> list[Grade]:
    """Grades of (annotator, clip, sub-dimension, grade)."""
    names = ("annotator", "video_id", "criterion", "grade")
    return [make_grade(k, **dict(zip(names, row, strict=True)), **changes) for k, row in enumerate(rows)]


def drawn(seed: int, clips: int = 12, people: int = 3) -> list[Grade]:
    random = np.random.default_rng(seed)
    rows = []
    for clip in range(clips):
        for sub in CHECKLIST.graded:
            true = int(random.integers(len(sub.scale)))
            for person in range(people):
                place = int(np.clip(true + random.integers(-1, 2) * (random.random() < 0.4), 0, len(sub.scale) - 1))
                grade = "" if random.random() < 0.1 else list(sub.scale)[place]
                rows.append((f"person {person}", f"clip {clip}", sub.name, grade))
    return table(rows)


def test_consistency_is_the_share_of_pairs_of_annotators_that_agree() -> None:
    grades = drawn(0)
    results = grade_results(STUDY, grades, CHECKLIST, GradingGuide(annotators_per_clip=3))
    same_answers, same_grades = [], []
    for clip in {one.video_id for one in grades}:
        for sub in CHECKLIST.graded:
            given_ = [one.grade for one in grades if (one.video_id, one.criterion) == (clip, sub.name) and one.grade]
            for one, other in combinations(given_, 2):
                same_grades.append(one == other)
                for mine, theirs in zip(sub.scale[one], sub.scale[other], strict=True):
                    if mine is not None and theirs is not None:
                        same_answers.append(mine == theirs)
    whole = results["consistency"]
    assert whole["binary"] == pytest.approx(np.mean(same_answers))
    assert whole["exact"] == pytest.approx(np.mean(same_grades))
    assert whole["pairs"] == len(same_grades) == sum(one["pairs"] for one in results["criteria"])
    assert whole["alpha"] == pytest.approx(np.mean([one["alpha"] for one in results["criteria"]]))
    for name in ("binary", "exact", "alpha"):
        assert whole[f"{name}_low"] < whole[name] < whole[f"{name}_high"]
    # Only the first two are compared where two were asked: the third settles what is disputed.
    two = grade_results(STUDY, grades, CHECKLIST, GradingGuide())["consistency"]
    assert two["pairs"] < whole["pairs"]
    assert "12 clips)" in consistency_words(two)


def alpha_of(units: list[list[int]]) -> float | None:
    """Alpha of units of grades 1 to 5 in one sub-dimension."""
    rows = [(f"p{k}", f"clip {u}", "light", str(grade)) for u, unit in enumerate(units) for k, grade in enumerate(unit)]
    results = grade_results(STUDY, table(rows), CHECKLIST, GradingGuide(annotators_per_clip=4))
    return results["criteria"][0]["alpha"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=6))
def test_alpha_is_krippendorffs(units: list[list[int]]) -> None:
    """Against the coincidence matrix, as Krippendorff (2011) writes it."""
    matrix = np.zeros((6, 6))
    for values in units:
        for one, other in permutations(values, 2):
            matrix[one, other] += 1 / (len(values) - 1)
    squares = np.subtract.outer(np.arange(6), np.arange(6)) ** 2
    n = matrix.sum(axis=1)
    expected = (np.outer(n, n) * squares).sum() / (n.sum() - 1) if n.sum() > 1 else 0.0
    if expected == 0:
        assert alpha_of(units) is None
    else:
        assert alpha_of(units) == pytest.approx(1 - (matrix * squares).sum() / expected)


def test_alpha_of_the_published_example() -> None:
    """Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, part C: interval data, 0.849."""
    rows = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[int(row[k]) for row in rows if row[k] != "."] for k in range(12)]
    assert alpha_of(units) == pytest.approx(0.849, abs=5e-4)


def test_the_interval_is_the_jackknife_over_clips() -> None:
    grades = drawn(1, clips=9)
    guide = GradingGuide(annotators_per_clip=3)
    whole = grade_results(STUDY, grades, CHECKLIST, guide)["consistency"]
    without = [
        grade_results(STUDY, [one for one in grades if one.video_id != f"clip {k}"], CHECKLIST, guide)["consistency"]
        for k in range(9)
    ]
    for measure, kind, n in (("exact", "share", whole["pairs"]), ("alpha", "number", None)):
        error = np.sqrt(8 * np.var([one[measure] for one in without]))
        expected = interval(whole[measure], float(error), 9, kind=kind, n=n)
        assert (whole[f"{measure}_low"], whole[f"{measure}_high"]) == pytest.approx(expected)


def test_too_few_clips_and_equal_grades_have_no_figure() -> None:
    same = table([(name, clip, "shape", "yes") for name in ("Ada", "Bob") for clip in ("a", "b")])
    results = grade_results(STUDY, same, CHECKLIST, GradingGuide())
    whole = results["consistency"]
    assert (whole["binary"], whole["alpha"], whole["binary_low"]) == (1.0, None, None)
    assert "alpha not defined" in consistency_words(whole)
    assert "no interval below 5 clips" in consistency_words(whole)
    assert (
        "no clip has two annotators yet" in grade_report_lines(grade_results(STUDY, [], CHECKLIST, GradingGuide()))[1]
    )


def test_those_who_are_too_fast_are_flagged() -> None:
    rows = [(clip, name, grade) for clip in "abcdefg" for name, grade in zip(NAMES, ("4", "yes", "2"), strict=True)]
    grades = []
    # A clip of 4 s and ten options at 0.1 s: less than 5 s for three answers is no time to look and read.
    for person, seconds in (("Ada", 6.0), ("Bob", 5.0), ("Cleo", 2.0), ("Dan", 1.0)):
        grades += table([(person, clip, name, grade) for clip, name, grade in rows], seconds=seconds, clip_seconds=4.0)
    people = {one["annotator"]: one for one in grade_results(STUDY, grades, CHECKLIST, GradingGuide())["annotators"]}
    assert people["Ada"]["flags"] == people["Bob"]["flags"] == []
    assert (people["Cleo"]["hasty_share"], people["Dan"]["hasty_share"]) == (0.0, 1.0)
    assert people["Cleo"]["flags"] == ["median below 50% of the others' 5.0 s"]
    assert len(people["Dan"]["flags"]) == 2
    lines = "\n".join(grade_report_lines(grade_results(STUDY, grades, CHECKLIST, GradingGuide())))
    assert lines.count("Flagged: ") == 3
    alone = grade_results(STUDY, [one for one in grades if one.annotator == "Dan"], CHECKLIST, GradingGuide())
    assert len(alone["annotators"][0]["flags"]) == 1


def test_the_shipped_guides_explain_every_grade_with_an_example() -> None:
    guides = ROOT / "conf" / "checklists" / "guides"
    for checklist, name in (
        ("base/checklist.yml", "micro_world"),
        ("checklists/video.yml", "video"),
        ("checklists/image.yml", "image"),
    ):
        graded = load_checklist(ROOT / "conf" / checklist)
        assert graded.name == name
        guide, criteria = load_guide(guides / f"{name}.yml", graded)
        assert [one.name for one in criteria] == [sub.name for sub in graded.graded]
        for one in criteria:
            assert all(option.text and option.example for option in one.options), one.name
            assert [option.grade for option in one.options] == list(guide.sub_dimensions[one.name].options)


def test_without_a_guide_grades_are_told_by_their_questions_and_mistakes_by_their_place(tmp_path: Path) -> None:
    _, (light, shape, letters) = load_guide(None, CHECKLIST)
    assert [option.text for option in light.options][-2:] == ["Yes: Is it above 1?", "No: Is it above 1?"]
    assert [(option.grade, option.text) for option in shape.options] == [("yes", "Yes"), ("no", "No")]
    assert [option.text for option in letters.options][1:] == ["Yes: Are there letters?", "No: Are there letters?"]
    path = tmp_path / "guide.yml"
    for text, message in (
        (
            "sub_dimensions: {beauty: {question: Beautiful}}",
            "field 'beauty': checklist 'small' has no grades for 'beauty'",
        ),
        ("sub_dimensions: {light: {question: Light, options: {9: {text: much}}}}", "has no grades for '9'"),
        ("sub_dimensions: {light: {question: Light, options: {5: {text: a, clip: ../x.mp4}}}}", "no file '../x.mp4'"),
        ("pass_share: 2", "field 'pass_share'"),
        ("passing: 1", "passing"),
        ("a: [", "cannot be read"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load_guide(path, CHECKLIST)
    path.write_text("sub_dimensions: {Shape: {question: Right, options: {yes: {text: It is}}}}", encoding="utf-8")
    _, (_, shape, _) = load_guide(path, CHECKLIST)
    assert (shape.question, [option.text for option in shape.options]) == ("Right", ["It is", "No"])
