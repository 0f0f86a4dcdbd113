"""Annotations become examples: tables of labels, people's grades, public files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.errors import InputError
from vr_pipeline.judges.training.annotations import annotations_from_grades, collect_examples, read_annotations
from vr_pipeline.judges.training.examples import StoredFrames
from vr_pipeline.video.write import write_video


@pytest.fixture(scope="module")
def graded_light() -> Checklist:
    sub = {"name": "light", "questions": [{"id": "bright", "text": "Is it bright?"}], "grades": {1: ["yes"], 0: ["no"]}}
    return checklist_from_mapping(
        {"name": "x", "modality": "video", "dimensions": [{"name": "light", "sub_dimensions": [sub]}]}
    )


def test_tables_become_examples(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", clip, fps=6)
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    folder = {path.name: path for path in tmp_path.iterdir()}
    index = pd.DataFrame(
        {
            "video_id": ["b", "a", "c"],
            "prompt": ["two", "one", "three"],
            "path": ["b.mp4", "a.mp4", "c.mp4"],
            "status": ["ok", "ok", "failed"],
        }
    )
    rows = [("a", "q1", True), ("a", "q2", False), ("b", "q1", True), ("c", "q1", True)]
    table = pd.DataFrame(rows, columns=["video_id", "question_id", "label"])
    (example,) = collect_examples(table, index, folder, num_frames=3)
    assert (example.video_id, example.prompt, example.labels) == ("a", "one", {"q1": True, "q2": False})
    assert np.array_equal(example.frames, clip[[0, 3, 5]])
    assert example.frames_per_second == pytest.approx(3.0)
    asked_twice = pd.concat([table.assign(prompt="one"), table.assign(prompt="other", caption="hm")])
    assert [e.prompt for e in collect_examples(asked_twice, index, folder)] == ["one", "other"]
    with pytest.raises(InputError, match="two labels"):
        collect_examples(pd.concat([table, table]), index, folder)
    with pytest.raises(InputError, match="not in the video index"):
        collect_examples(table.assign(video_id="z"), index, folder)


def test_grades_become_labels() -> None:
    checklist = checklist_from_mapping(
        {
            "name": "x",
            "modality": "video",
            "dimensions": [
                {
                    "name": "d",
                    "sub_dimensions": [
                        {
                            "name": "lighting_aes",
                            "questions": [{"id": "fine", "text": "Fine?"}, {"id": "fair", "text": "Fair?"}],
                            "grades": {2: ["yes", "yes"], 1: ["no", "yes"], 0: ["no", None]},
                        }
                    ],
                }
            ],
        }
    )
    nested = pd.DataFrame({"video_path": ["a.mp4", "b.mp4"], "annotation": [{"Lighting aes": 1}, {"lighting_aes": 0}]})
    expected = [("a.mp4", "fine", False), ("a.mp4", "fair", True), ("b.mp4", "fine", False)]
    found = annotations_from_grades(nested, checklist)
    assert list(found[["video_id", "question_id", "label"]].itertuples(index=False, name=None)) == expected
    assert found["file"].tolist() == found["video_id"].tolist()
    flat = pd.DataFrame({"video_id": ["a.mp4", "b.mp4"], "lighting_aes": [1.0, 0.0]})
    pd.testing.assert_frame_equal(annotations_from_grades(flat, checklist), found.drop(columns="file"))
    texts = nested.assign(annotation=nested["annotation"].map(json.dumps))
    pd.testing.assert_frame_equal(annotations_from_grades(texts, checklist), found)
    with pytest.raises(InputError, match="row 3, field 'lighting_aes'"):
        annotations_from_grades(flat.assign(lighting_aes=[1, 9]), checklist)
    with pytest.raises(InputError, match="names the clips"):
        annotations_from_grades(flat.drop(columns="video_id"), checklist)
    # Columns are named as grades are, and a table with gaps writes its numbers with a point.
    gaps = pd.DataFrame({"video_id": ["a.mp4", "b.mp4", "c.mp4"], "Lighting aes": ["1.0", "0.0", ""]})
    pd.testing.assert_frame_equal(annotations_from_grades(gaps, checklist), found.drop(columns="file"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotation": "{'light': 1}"}, r"row 5, field 'annotation': the annotation is not valid JSON"),
        ({"annotation": "good"}, r"row 5, field 'annotation': the annotation is not valid JSON"),
        ({"annotation": [1, 2]}, r"row 5, field 'annotation': the annotation is '\[1, 2\]'"),
        ({"annotation": {"light": [1, 2]}}, r"row 5, field 'light': grade '\[1, 2\]' is not a grade of"),
        ({"video_path": None}, r"row 5, field 'video_path': the cell is empty"),
    ],
)
def test_grades_that_cannot_be_read_are_rejected(
    graded_light: Checklist, changes: dict[str, Any], message: str
) -> None:
    rows = [{"video_path": name, "annotation": {"light": 1}} for name in ("a.mp4", "b.mp4")]
    with pytest.raises(InputError, match=message):
        annotations_from_grades(pd.DataFrame([rows[0], rows[1] | changes]), graded_light, first_row=4)


def test_grades_of_another_checklist_do_not_vanish_silently(
    graded_light: Checklist, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"video_path": "a.mp4", "annotation": {"light": 1, "colour": 2}}, {"video_path": "b.mp4"}]
    assert len(annotations_from_grades(pd.DataFrame(rows), graded_light)) == 1
    assert "Grades of colour are left out: the checklist maps grades of light." in caplog.text
    with pytest.raises(InputError, match=r"no grade of a sub-dimension .* as the checklist does \(light\)"):
        annotations_from_grades(pd.DataFrame([{"video_path": "a.mp4", "annotation": {"colour": 2}}]), graded_light)


def test_missing_texts_of_annotations_are_not_the_word_nan(graded_light: Checklist, tmp_path: Path) -> None:
    rows = [
        {"video_path": "a.mp4", "annotation": {"light": 1}, "prompt": "a cat", "caption": "cat"},
        {"video_path": "b.mp4", "annotation": {"light": 1}, "prompt": None},
    ]
    found = annotations_from_grades(pd.DataFrame(rows), graded_light)
    assert found[["prompt", "caption"]].to_numpy().tolist() == [["a cat", "cat"], ["", ""]]
    # A clip without a prompt of its own is judged against that of the index, and not lost.
    clip = np.zeros((2, 64, 64, 3), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, clip, fps=6)
    index = pd.DataFrame({"video_id": ["a.mp4", "b.mp4"], "path": ["a.mp4", "b.mp4"], "prompt": ["a fox", "a dog"]})
    index = index.assign(num_frames=2, fps=6.0, status="ok")
    folder = {name: tmp_path / name for name in index["path"]}
    for table in (found, found.replace("", None)):
        examples = collect_examples(table, index, folder)
        assert [(one.prompt, one.caption) for one in examples] == [("a cat", "cat"), ("a dog", "")]
    labels = tmp_path / "labels.csv"
    labels.write_text("video,question_id,label\na.mp4,bright,yes\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\.csv, field 'video_id': a column is missing"):
        read_annotations(labels, graded_light)


def test_public_annotations_and_a_folder_of_clips_become_examples(tmp_path: Path) -> None:
    """The columns of VisionRewardDB, the project's own video checklist, clips as downloaded."""
    from vr_pipeline.checklist import load_checklist
    from vr_pipeline.datasets.annotations import JudgeAnnotationsDataset
    from vr_pipeline.datasets.clips import ClipFolderDataset
    from vr_pipeline.pipelines.judge_training.nodes import index_judge_training_videos
    from vr_pipeline.schemas import JudgeAnnotations

    path = Path(__file__).parents[3] / "conf/checklists/video.yml"
    clip = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "clips/videos/a.mp4", clip, fps=6)
    write_video(tmp_path / "clips/videos/b.mp4", clip[:3], fps=6)
    entries = [
        {"video_path": "videos/a.mp4", "internal_id": 1, "prompt": "a cat", "annotation": {"alignment": 5, "focus": 2}},
        {"video_path": "videos/b.mp4", "internal_id": 2, "prompt": "a dog", "annotation": {"alignment": 1}},
        {"video_path": "videos/c.mp4", "internal_id": 3, "prompt": "a fox", "annotation": {"safety": 5}},
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(entry | {"meta_mask": []}) + "\n" for entry in entries), encoding="utf-8")
    dataset = JudgeAnnotationsDataset(filepath=str(file), checklist=str(path))
    table = JudgeAnnotations.validate(dataset.load())
    folder = ClipFolderDataset(path=str(tmp_path / "clips")).load()
    index = index_judge_training_videos(folder, table)
    assert index["status"].tolist() == ["ok", "ok", "failed"]
    first, second = collect_examples(table, index, folder, num_frames=3)
    checklist = load_checklist(path)
    expected = checklist.answers_from_grades({"alignment": 5, "focus": 2})
    assert (first.prompt, first.labels, len(first.frames)) == ("a cat", expected, 3)
    assert not any(second.labels.values())
    assert np.array_equal(second.frames, clip[:3])
    # Without memory for them, frames are read when they are needed, and are the same.
    stored, _ = collect_examples(table, index, folder, frames_per_second=2.0, num_frames=3, memory_mb=-1)
    whole, _ = collect_examples(table, index, folder, frames_per_second=2.0, num_frames=3)
    assert isinstance(stored.frames, StoredFrames)
    assert np.array_equal(stored.read(), whole.frames)
    assert stored.frames_per_second == pytest.approx(whole.frames_per_second)
    # The project's own form, in words.
    own = tmp_path / "own.csv"
    own.write_text("video_id,question_id,label,file,prompt\n7,q,yes,a.mp4,x\n8,q,no,b.mp4,x\n", encoding="utf-8")
    read = JudgeAnnotationsDataset(filepath=str(own), checklist=str(path)).load()
    assert read[["video_id", "label"]].to_numpy().tolist() == [["7", True], ["8", False]]
    own.write_text("video_id,question_id,label\n7,q,yes\n8,q,perhaps\n9,q,\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"own\.csv, row 3, field 'label': the label is 'perhaps'"):
        JudgeAnnotationsDataset(filepath=str(own), checklist=str(path)).load()
    file.write_text(json.dumps(entries[0] | {"annotation": {"alignment": 9}}), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"train\.jsonl, row 1, field 'alignment'"):
        dataset.load()
