"""Grades that people gave in the browser become labels, and a judge learns from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.annotation.graded import CHECKLIST, STUDY, make_grade

from vr_pipeline.annotation.store import Journal
from vr_pipeline.datasets.annotations import JudgeAnnotationsDataset
from vr_pipeline.datasets.clips import ClipFolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.judges.training.annotations import read_annotations
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.pipelines.judge_training.nodes import index_judge_training_videos, train_judge
from vr_pipeline.preferences.journal import Grade, Study
from vr_pipeline.schemas import JudgeAnnotations
from vr_pipeline.video.write import write_video

YAML = """
name: small
modality: video
dimensions:
  - name: quality
    sub_dimensions:
      - name: light
        questions: [{id: bright, text: 'is it bright ?'}, {id: not_dark, text: 'is it not dark ?'}]
        grades: {2: [yes, yes], 1: [no, yes], 0: [no, no]}
      - name: shape
        questions: [{id: shape, text: '[[prompt]] : is it right ?'}]
"""


def write_journal(path: Path, grades: list[dict[str, object]]) -> Path:
    journal: Journal[Grade] = Journal(path, STUDY)
    for number, changes in enumerate(grades):
        journal.add(make_grade(number, **changes))
    journal.close()
    return path


def test_most_annotators_decide_question_by_question(tmp_path: Path) -> None:
    path = write_journal(
        tmp_path / "grades.jsonl",
        [
            {"grade": "4"},
            {"grade": "3", "annotator": "Bob"},  # they differ in light_3 alone
            {"video_id": "two", "grade": "5"},
            {"video_id": "two", "grade": "1", "annotator": "Bob"},
            {"video_id": "two", "grade": "3", "annotator": "Cleo"},  # the median of 1, 3, 5
            {"video_id": "two", "criterion": "letters", "grade": "0"},  # says nothing about letters that are not there
            {"video_id": "two", "criterion": "shape", "grade": "", "reason": "cannot be told"},
            {"video_id": "three", "part": "training", "grade": "5", "right": "5"},
            {"video_id": "three", "part": "control", "grade": "5", "right": "5"},
        ],
    )
    labels = JudgeAnnotations.validate(read_annotations(path, CHECKLIST))
    found = {(row.video_id, row.question_id): row.label for row in labels.itertuples()}
    assert found == {
        ("one", "light_4"): False,
        ("one", "light_2"): True,
        ("one", "light_1"): True,
        ("two", "light_4"): False,
        ("two", "light_3"): False,
        ("two", "light_2"): True,
        ("two", "light_1"): True,
        ("two", "letters_there"): False,
    }
    assert set(labels["source"]) == {"annotations test"}
    alone = read_annotations(path, CHECKLIST, without=["Bob", "Cleo"])
    assert len(alone) == 9
    with pytest.raises(InputError, match="no clip has a grade yet"):
        read_annotations(path, CHECKLIST, without=["Ada", "Bob", "Cleo"])
    other = write_journal(tmp_path / "other.jsonl", [{"grade": "7"}])
    with pytest.raises(InputError, match="has no grade '7' of 'light'"):
        read_annotations(other, CHECKLIST)
    Journal(tmp_path / "pairs.jsonl", Study(study="pairs", source="generated")).close()
    with pytest.raises(InputError, match="has comparisons of clips"):
        read_annotations(tmp_path / "pairs.jsonl", CHECKLIST)


def test_a_judge_is_trained_on_the_journal(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    random = np.random.default_rng(0)
    grades: list[dict[str, object]] = []
    for number in range(12):
        bright = number % 3
        frames = random.integers(0, 60, (4, 16, 16, 3)) + 90 * bright
        write_video(clips / f"{number}.mp4", frames.astype(np.uint8), fps=8)
        clip = {"video_id": f"clip{number}", "file": f"{number}.mp4", "prompt": "ball"}
        grades += [clip | {"grade": str(bright)}, clip | {"criterion": "shape", "grade": ("yes", "no")[number % 2]}]
    (tmp_path / "checklist.yml").write_text(YAML, encoding="utf-8")
    path = write_journal(tmp_path / "grades.jsonl", grades)
    dataset = JudgeAnnotationsDataset(filepath=str(path), checklist=str(tmp_path / "checklist.yml"))
    annotations = dataset.load()
    assert len(annotations) == 36
    folder = ClipFolderDataset(path=str(clips)).load()
    index = index_judge_training_videos(folder, annotations)
    assert (len(index), set(index["status"])) == (12, {"ok"})
    from vr_pipeline.checklist import load_checklist

    tiny = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16, "vision_size": 16, "num_frames": 4}
    parameters = JudgeTrainingParameters.model_validate(
        {"tiny": tiny, "steps": 2, "warmup_steps": 1, "batch_size": 4, "checkpoint_every": 2, "learning_rate": 1e-3,
         "validation_share": 0.25}
    )  # fmt: skip
    judge, report, log, _ = train_judge(
        annotations, index, folder, load_checklist(tmp_path / "checklist.yml"), parameters
    )
    assert log["step"].tolist() == [1, 2]
    assert set(report["question_id"]) == {"bright", "not_dark", "shape"}
    assert judge is not None
