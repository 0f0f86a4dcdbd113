"""The public VisionReward files and the project's own checklists."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from given_answers import public_score
from vr_pipeline.checklist import load_checklist
from vr_pipeline.checklist.visionreward import ALIGNMENT_ID
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.linear import score
from vr_pipeline.rewards.checklist.visionreward import read_visionreward

CHECKLISTS = Path(__file__).parents[3] / "conf/checklists"


def write_files(folder: Path, lines: int, weights: int, *, mapping: bool) -> tuple[Path, Path]:
    """Files of the public form with other texts."""
    questions = folder / "questions.txt"
    questions.write_text("\n".join(f"Is it number {line}? " for line in range(lines)) + "\n", encoding="utf-8")
    values = [round(0.1 * (1 + number % 7), 3) for number in range(weights)]
    path = folder / "weights.json"
    path.write_text(json.dumps({"coef": values, "intercept": [0.0]} if mapping else values), encoding="utf-8")
    return questions, path


@pytest.mark.parametrize(("lines", "weights", "modality"), [(29, 29, "video"), (30, 28, "image"), (59, 55, "image")])
def test_reads_and_scores_as_the_public_code(tmp_path: Path, lines: int, weights: int, modality: str) -> None:
    questions_path, weights_path = write_files(tmp_path, lines, weights, mapping=modality == "image")
    checklist, fitted = read_visionreward(questions_path, weights_path)
    assert fitted is not None
    assert checklist.modality == modality
    asked = [question for question in checklist.questions if question.question_id != ALIGNMENT_ID]
    assert [question.text for question in asked] == [f"Is it number {line}?" for line in range(lines)]
    assert fitted.checklist_hash == checklist.hash
    assert load_checklist(questions_path) == checklist
    assert len(fitted.kept) == weights
    random = np.random.default_rng(lines)
    values = np.array(
        json.loads(weights_path.read_text())["coef" if modality == "image" else slice(None)]
        if modality == "image"
        else json.loads(weights_path.read_text())
    )
    for _ in range(20):
        said = random.random(lines) < 0.5
        alignment = float(random.random())
        # The public rule, written out on line numbers.
        x = np.where(said, 1.0, -1.0)
        if lines == 30:
            for gate, off in {0: [22, 23, 24, 28, 29], 1: [25, 26], 2: [27]}.items():
                if not said[gate]:
                    x[off] = 0
            x = np.concatenate([[alignment], x[3:]])
        elif lines == 59:
            gates = {0: range(43, 47), 1: range(47, 51), 2: range(51, 55), 15: [13, 14], 26: [24, 25, 27, 28]}
            for gate, off in gates.items():
                if not said[gate]:
                    x[list(off)] = 0
            x = np.concatenate([[alignment], np.delete(x, [0, 1, 2, 15, 26])])
        expected = float((x * values).mean())
        answers: dict[str, float] = {question.question_id: bool(said[line]) for line, question in enumerate(asked)}
        if modality == "image":
            answers[ALIGNMENT_ID] = alignment
        assert public_score(answers, checklist, fitted) == pytest.approx(expected, abs=1e-12)
        if modality == "video":
            binary = np.array([float(answers[question]) for question in fitted.question_ids])
            assert score(binary, fitted) / len(binary) == pytest.approx(expected, abs=1e-12)


def test_questions_of_weight_zero_are_the_removed_ones(tmp_path: Path) -> None:
    questions, weights = write_files(tmp_path, 29, 29, mapping=False)
    values = json.loads(weights.read_text(encoding="utf-8"))
    weights.write_text(json.dumps([*values[:27], 0.0, -0.1]), encoding="utf-8")
    _, fitted = read_visionreward(questions, weights)
    assert fitted is not None
    assert np.flatnonzero(fitted.removed).tolist() == [27]


def test_refusals(tmp_path: Path) -> None:
    questions, weights = write_files(tmp_path, 29, 28, mapping=False)
    with pytest.raises(InputError, match="28 weights, but the question list needs 29"):
        read_visionreward(questions, weights)
    questions, weights = write_files(tmp_path, 12, 12, mapping=False)
    with pytest.raises(InputError, match="12 questions"):
        read_visionreward(questions, weights)
    questions, _ = write_files(tmp_path, 30, 28, mapping=True)
    assert read_visionreward(questions)[1] is None
    with pytest.raises(InputError, match="does not exist"):
        read_visionreward(tmp_path / "none.txt")
    (tmp_path / "weights.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not valid JSON"):
        read_visionreward(questions, tmp_path / "weights.json")


@pytest.mark.real_data
def test_public_files_themselves() -> None:
    folder = os.environ.get("VR_REAL_DATA")
    if not folder:
        pytest.skip("VR_REAL_DATA is not set")
    public = Path(folder) / "upstream/visionreward"
    video, weights = read_visionreward(public / "VisionReward_video_qa_select.txt", public / "video_weight.json")
    assert (len(video.questions), len(video.dimensions)) == (29, 8)
    assert weights is not None
    every = dict.fromkeys(video.question_ids, True)
    assert public_score(every, video, weights) == pytest.approx(float(np.mean(weights.weights)))
    # Where each sub-dimension starts, seen in the words of the lists themselves.
    for question in video.questions:
        word = question.sub_dimension.split("_")[0]
        if word in ("composition", "color", "lighting", "camera", "shape"):
            assert word in question.text.lower()
    own = {
        question.text
        for name in ("video", "image")
        for question in load_checklist(CHECKLISTS / f"{name}.yml").questions
    }
    full, none = read_visionreward(public / "VisionReward_video_qa.txt")
    assert own.isdisjoint(question.text for question in full.questions)
    assert (len(full.questions), len(full.dimensions), none) == (64, 9, None)
    for questions, weights_file, count in (
        ("VisionReward_image_qa.txt", "image_weight.json", 55),
        ("VisionReward_image_qa_select.txt", "image_weight_select.json", 28),
    ):
        image, image_weights = read_visionreward(public / questions, public / weights_file)
        assert image_weights is not None
        assert len(image_weights.weights) == count
        assert own.isdisjoint(question.text for question in image.questions if question.question_id != "text_alignment")
        for question in image.questions:
            if question.sub_dimension in ("body", "face", "hands", "background"):
                assert question.sub_dimension in question.text.lower()


@pytest.mark.parametrize(("name", "dimensions", "questions", "gates"), [("video", 9, 64, 1), ("image", 5, 60, 5)])
def test_own_checklists(name: str, dimensions: int, questions: int, gates: int) -> None:
    checklist = load_checklist(CHECKLISTS / f"{name}.yml")
    assert checklist.modality == name
    assert len(checklist.dimensions) == dimensions
    assert len(checklist.questions) == questions
    assert sum(not question.weighted for question in checklist.questions) == gates
    for sub in checklist.sub_dimensions:
        # Within the ladder of a sub-dimension a better grade never turns a yes into a no.
        rows = [row for _, row in sorted(sub.grades.items(), key=lambda item: int(item[0]))]
        for worse, better in itertools.pairwise(rows):
            for before, after in zip(worse, better, strict=True):
                assert before is None or after is None or before <= after
        # The strictest question comes first: who passes it passes the milder ones.
        weighted = [at for at, question in enumerate(sub.questions) if question.weighted]
        for row in rows:
            ladder = [row[at] for at in weighted if row[at] is not None]
            assert ladder == sorted(ladder)
    texts = [question.text for question in checklist.questions]
    assert len({text.lower() for text in texts}) == len(texts)
    assert all(text.endswith("?") for text in texts)


VIDEO_GRADES = {
    **dict.fromkeys(
        ["alignment", "color", "lighting aes", "object motion dynamic", "camera motion dynamic", "clear"], (1, 5)
    ),
    **dict.fromkeys(["image quality stability", "detail refinement", "physics law", "safety"], (1, 5)),
    **dict.fromkeys(["composition", "focus", "camera movement", "camera stability"], (1, 3)),
    **dict.fromkeys(["lighting accurate", "letters"], (1, 4)),
    "shape at beginning": (0, 3),
    **dict.fromkeys(["shape throughout", "movement smoothness", "movement reality"], (0, 4)),
}
IMAGE_GRADES = {
    **dict.fromkeys(["symmetry", "object pairing", "main object", "color brightness", "color aesthetic"], (-1, 1)),
    **dict.fromkeys(["richness", "clarity", "emotion"], (-2, 2)),
    **dict.fromkeys(["background", "lighting distinction", "lighting aesthetic"], (-1, 2)),
    "detail refinement": (-4, 2),
    **dict.fromkeys(["detail realism", "safety"], (-3, 1)),
    **dict.fromkeys(["body", "hands"], (-4, 1)),
    "face": (-3, 2),
}


@pytest.mark.parametrize(("name", "ranges"), [("video", VIDEO_GRADES), ("image", IMAGE_GRADES)])
def test_every_grade_of_the_public_annotations_has_answers(name: str, ranges: dict[str, tuple[int, int]]) -> None:
    checklist = load_checklist(CHECKLISTS / f"{name}.yml")
    graded = {sub.name for sub in checklist.sub_dimensions if sub.grades}
    assert graded == {sub.replace(" ", "_") for sub in ranges}
    for sub, (low, high) in ranges.items():
        best = checklist.answers_from_grades({sub: high})
        assert all(best.values())
        assert len(best) == sum(one.sub_dimension == sub.replace(" ", "_") for one in checklist.questions)
        for grade in range(low, high + 1):
            checklist.answers_from_grades({sub.title(): grade})
        for outside in (low - 1, high + 1):
            with pytest.raises(InputError, match="is not a grade of sub-dimension"):
                checklist.answers_from_grades({sub: outside})


def test_a_list_that_another_program_saved_is_the_same(tmp_path: Path) -> None:
    lines = [f"Is the clip good in way {number}?\u2028Quite?" for number in range(64)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "b.txt").write_bytes("\r\n".join([*lines, "", ""]).encode("utf-16"))
    first, second = (read_visionreward(tmp_path / name)[0] for name in ("a.txt", "b.txt"))
    assert first.questions == second.questions
