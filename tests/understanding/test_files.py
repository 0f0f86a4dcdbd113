"""Users' files of questions and of pairs of responses: what is read, and what is said of what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.schemas import Questions, ResponsePairs
from vr_pipeline.understanding.files import media_names, read_questions, read_response_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    media = tmp_path / "media"
    (media / "frames").mkdir(parents=True)
    for name in ("a.mp4", "b.png", "frames/1.png", "frames/2.png", "notes.txt"):
        (media / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.json") -> Path:
    path = folder / name
    if name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def questions(folder: Path, rows: list[dict[str, Any]], name: str = "rows.json") -> pd.DataFrame:
    path = write(folder, rows, name)
    return Questions.validate(read_questions(path, media_names(folder / "media", path)))


def pairs(folder: Path, rows: list[dict[str, Any]], name: str = "rows.json") -> pd.DataFrame:
    path = write(folder, rows, name)
    return ResponsePairs.validate(read_response_pairs(path, media_names(folder / "media", path)))


@pytest.mark.parametrize("name", ["rows.json", "rows.csv"])
def test_questions_about_videos_images_and_frames(folder: Path, name: str) -> None:
    frames: Any = ["frames/2.png", "frames/1.png"]
    found = questions(
        folder,
        [
            {"id": "1", "video": "a.mp4", "prompt": "<image>\nWhat is it?", "answer": "a fox", "group": "g"},
            {"id": "2", "video": "media/b.png", "prompt": "What is it?", "answer": "", "group": ""},
            {"id": "3", "video": json.dumps(frames) if name.endswith("csv") else frames, "prompt": "And?"},
        ],
        name,
    )
    assert found["question_id"].tolist() == ["1", "2", "3"]
    assert [json.loads(files) for files in found["files"]] == [["a.mp4"], ["b.png"], frames]
    # The mark of a clip's place is no part of the question.
    assert found["prompt"].tolist() == ["What is it?", "What is it?", "And?"]
    assert found["answer"].tolist() == ["a fox", "", ""]
    assert found["group"][0] == "g"
    assert found["group"].nunique() == 3


def test_rows_without_an_identifier_have_one_of_their_content(folder: Path) -> None:
    rows = [{"image": "b.png", "question": "What?"}, {"image": "b.png", "question": "Where?"}]
    found = questions(folder, rows)
    assert found["question_id"].nunique() == 2
    turned = questions(folder, rows[::-1])
    assert set(turned["question_id"]) == set(found["question_id"])
    # Both are about one image, so they stay together.
    assert found["group"].nunique() == 1


def test_pairs_of_responses_as_unified_reward_writes_them(folder: Path) -> None:
    found = pairs(
        folder,
        [
            {"id": "a", "caption": "<video>\nWhat?", "chosen": "a fox runs", "rejected": "a cat", "scores": [4, 2.5]},
            {"id": "b.png", "caption": "What?", "chosen": "red", "rejected": "blue"},
        ],
    )
    assert [json.loads(files) for files in found["files"]] == [["a.mp4"], ["b.png"]]
    assert found["prompt"].tolist() == ["What?", "What?"]
    assert found["chosen_score"][0] == 4.0
    assert found["rejected_score"][0] == 2.5
    assert np.isnan(found["chosen_score"][1])
    # The same file names the questions.
    both = questions(folder, [{"id": "a", "caption": "What?", "chosen": "x"}, {"id": "a", "caption": "What?"}])
    assert both["question_id"].tolist() == ["a"]


GOOD = {"id": "1", "image": "b.png", "prompt": "What?", "chosen": "red", "rejected": "blue"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "c.png"}, "row 1, field 'image': there is no clip 'c.png'"),
        ({"image": ""}, "row 1, field 'image': a file name is missing"),
        ({"prompt": "<image>"}, "field 'prompt': the text is empty"),
        ({"rejected": "red"}, "both responses are the same"),
        ({"rejected": ""}, "field 'rejected': the text is empty"),
        ({"chosen": "x/1.mp4", "rejected": "x/2.mp4"}, "a pair of clips or images .* given_dpo"),
        ({"scores": [1, 2]}, "the chosen response has 1 points, but the rejected one 2"),
        ({"scores": [2]}, "not two numbers"),
        ({"scores": [2, None]}, "one response has no points"),
        ({"scores": ["good", "bad"]}, "not two numbers"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        pairs(folder, [GOOD | change])
    assert "rows.json" in str(error.value)


def test_what_is_missing_as_a_whole(folder: Path) -> None:
    with pytest.raises(InputError, match="field 'rejected': a column is missing"):
        pairs(folder, [{name: value for name, value in GOOD.items() if name != "rejected"}])
    with pytest.raises(InputError, match="no column has the clip or images"):
        pairs(folder, [{"prompt": "What?", "chosen": "red", "rejected": "blue"}])
    with pytest.raises(InputError, match="'1' is duplicated"):
        questions(folder, [GOOD, GOOD | {"prompt": "Where?"}])


def test_a_bad_row_among_many_is_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [GOOD | {"id": str(number), "chosen": f"red {number}"} for number in range(12)]
    found = pairs(folder, [*rows, GOOD | {"image": "c.png"}])
    assert len(found) == 12
    assert "1 of 13 pairs of responses are left out" in caplog.text
