"""Labelled items: conversations of judges and tables of ratings, row by row and with their clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DatasetError
from PIL import Image

from vr_pipeline.datasets.labelled_items import LabelledItemClipsDataset, LabelledItemsDataset
from vr_pipeline.errors import InputError
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.preferences.items.conversation import (
    LLAVA_CRITIC,
    UNIFIED_REWARD,
    fields_of,
    preference_of,
    scores_of,
)
from vr_pipeline.preferences.items.formats import read_items
from vr_pipeline.preferences.rows import file_identifier
from vr_pipeline.schemas import VideoIndex
from vr_pipeline.video.read import read_frames

TASK = "Judge what is shown. Question: is only mentioned here.\nYour task is provided as follows:\n"


def talk(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}], **more}


def written(tmp_path: Path, rows: list[dict[str, Any]], name: str = "items.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def read(tmp_path: Path, rows: list[dict[str, Any]], format: str = "unified_reward_items", **options: Any) -> Any:
    return read_items(written(tmp_path, rows), format, **options).to_dict("records")


def test_a_pair_of_images(tmp_path: Path) -> None:
    question = f"<image>\n <image>\n{TASK}Text Caption: [a [red] fox]"
    (row,) = read(tmp_path, [talk(question, "Image 2 is better than Image 1.", images=["x/1.png", "x/2.png"])])
    assert (row["task"], row["form"], row["answer"]) == ("image_generation", "pair", "second")
    assert row["prompt"] == "a [red] fox"
    assert (row["files_a"], row["files_b"]) == (["x/1.png"], ["x/2.png"])
    assert row["video_id_a"] == file_identifier("a [red] fox", "x/1.png")


def test_frames_of_two_clips_are_divided_in_the_middle(tmp_path: Path) -> None:
    frames = [f"{clip}/{number}.png" for clip in "ab" for number in range(4)]
    question = "<image>\n" * 8 + f"{TASK}Text Caption: [a fox]"
    (row,) = read(tmp_path, [talk(question, "Both videos are equally good.", images=frames)])
    assert (row["task"], row["answer"]) == ("video_generation", "tie")
    assert (row["files_a"], row["files_b"]) == (frames[:4], frames[4:])


def test_responses_about_one_clip_are_compared(tmp_path: Path) -> None:
    question = f"<video>\n{TASK}Question: [What moves?]\nResponse 1: [A ball: it rolls.]\nResponse 2: [Nothing\nat all]"
    (row,) = read(tmp_path, [talk(question, "Response 1 is better than Response 2.", video="clip.mp4")])
    assert (row["task"], row["answer"]) == ("video_understanding", "first")
    assert (row["response_a"], row["response_b"]) == ("A ball: it rolls.", "Nothing\nat all")
    assert (row["files_a"], row["files_b"], row["video_id_b"]) == (["clip.mp4"], [], "")


def test_scores_by_dimension_and_of_the_whole(tmp_path: Path) -> None:
    question = "<image>\n" * 2 + f"{TASK}Text Prompt: [a fox]"
    answer = "visual quality: 3\ntemporal consistency: 2\nfactual consistency: 4\nFinal Score: 10"
    rows = read(tmp_path, [talk(question, answer, images=["1.png", "2.png"])])
    assert {row["dimension"]: row["answer"] for row in rows} == {
        "visual quality": "3",
        "temporal consistency": "2",
        "factual consistency": "4",
        "": "10",
    }
    assert {row["form"] for row in rows} == {"point"}
    assert len({row["item_id"] for row in rows}) == 4


def test_a_response_is_scored(tmp_path: Path) -> None:
    question = f"<image>\n{TASK}Question: [What is it?]\nResponse: [A red fox.]\n"
    (row,) = read(tmp_path, [talk(question, "It names the fox.\nFinal Score: 92.5/100", image="fox.jpg")])
    assert (row["task"], row["form"], row["answer"]) == ("image_understanding", "point", "92.5")
    assert row["response_a"] == "A red fox."


def test_reasons_may_come_first_in_llava_critic(tmp_path: Path) -> None:
    question = (
        f"<image>\n{TASK}Question: [Who?]\nThe first response: [A man.]\nThe second response: [A dog.]\nASSISTANT:"
    )
    answer = "The man is seen at once. So the first response, which names him, is better."
    (row,) = read(tmp_path, [talk(question, answer, image="x.jpg")], "llava_critic")
    assert row["answer"] == "first"
    assert row["response_b"] == "A dog."


@given(
    st.text("ab c:,.", min_size=1, max_size=12).filter(str.strip),
    st.text("ab c:,.\n", min_size=1, max_size=20).filter(str.strip),
    st.text("ab c:,.\n", min_size=1, max_size=20).filter(str.strip),
)
def test_fields_in_brackets_come_back(prompt: str, first: str, second: str) -> None:
    said = fields_of(f"{TASK}Question: [{prompt}]\nResponse 1: [{first}]\nResponse 2: [{second}]", UNIFIED_REWARD)
    assert (said.prompt, said.response_a, said.response_b) == (prompt.strip(), first.strip(), second.strip())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Image 1 is better than Image 2.", "first"),
        ("Video 2 is better than Video 1.", "second"),
        ("Response 1 is slightly better.", "first"),
        ("Both images are equally bad.", "tie"),
        ("I cannot say.", None),
    ],
)
def test_what_an_answer_prefers(answer: str, expected: str | None) -> None:
    assert preference_of(answer, UNIFIED_REWARD) == expected


def test_an_answer_that_says_two_things_is_none() -> None:
    with pytest.raises(ValueError, match="both first and second"):
        preference_of("Image 1 is better than Image 2. Image 2 is better than Image 1.", UNIFIED_REWARD)
    with pytest.raises(ValueError, match="several values"):
        scores_of("Final Score: 3\nFinal Score: 4", UNIFIED_REWARD)
    assert scores_of("Score: 7", LLAVA_CRITIC) == {"": "7"}
    assert scores_of("8", LLAVA_CRITIC) == {"": "8"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (talk(f"{TASK}Text Caption: [x]", "Image 1 is better.", image="a.png"), "two clips are compared"),
        (talk(f"<image>{TASK}Text Caption: [x]", "Final Score: 3", images=["a.png", "b.png"]), "shows 1 images"),
        (talk(f"{TASK}Response 1: [x]\nResponse 2: [y]", "Response 1 is better.", image="a.png"), "no field"),
        (talk(f"{TASK}Question: [q]\nResponse 1: [x]", "Response 1 is better.", image="a.png"), "no Response 2"),
        (talk(f"{TASK}Text Caption: [x]", "A nice picture.", image="a.png"), "neither a preference nor a score"),
        (talk(f"{TASK}Text Caption: [x]", "Final Score: 3"), "no image or video"),
        (talk(f"{TASK}Text Caption: [x]", "", image="a.png"), "is not text"),
        ({"conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}], "image": "a.png"}, "gpt"),
        ({"conversations": 3, "image": "a.png"}, "is not a list"),
        (talk(f"{TASK}Text Caption: [x]", "Image 1 is better.", images=["a.png"] * 2), "with itself"),
    ],
)
def test_a_bad_entry_is_rejected_with_its_reason_and_the_others_are_read(
    tmp_path: Path, row: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = [talk(f"{TASK}Text Caption: [x {n}]", "Final Score: 3", image=f"{n}.png") for n in range(12)]
    table = read_items(written(tmp_path, [*good[:5], row, *good[5:]]), "unified_reward_items")
    assert len(table) == 12
    assert table.attrs["rejected"] == 1
    assert reason in caplog.text
    with pytest.raises(InputError, match=r"items\.json") as error:
        read_items(written(tmp_path, [good[0], row, row]), "unified_reward_items")
    assert error.value.row == 2


def test_wrong_formats_and_patterns_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, [talk("x", "y", image="a.png")])
    with pytest.raises(InputError, match="unknown format 'unified'"):
        read_items(path, "unified")
    with pytest.raises(InputError, match="a pattern is wrong") as error:
        read_items(path, "llava_critic", patterns={"prompts": ["Q"]})
    assert error.value.field == "patterns.prompts"
    with pytest.raises(InputError, match="has no conversations"):
        read_items(path, "evalmuse", patterns={"prompt": ["Q"]})


def test_other_wordings_are_configuration(tmp_path: Path) -> None:
    rows = [talk("Caption: [a fox]", "Left wins", images=["1.png", "2.png"])]
    patterns = {"prompt": ["Caption"], "first": [r"\bleft wins\b"]}
    (row,) = read(tmp_path, rows, patterns=patterns, source="mine")
    assert (row["prompt"], row["answer"], row["source"]) == ("a fox", "first", "mine")


def test_video_feedback(tmp_path: Path) -> None:
    row = {
        "id": "7",
        "images": ["7_00.jpg", "7_01.jpg"],
        "text prompt": "a fox",
        **{"visual quality": 3, "temporal consistency": "2", "dynamic degree": 1.0},
        **{"text-to-video alignment": 4, "factual consistency": 2},
    }
    rows = read(tmp_path, [row], "video_feedback")
    assert [one["answer"] for one in rows] == ["3", "2", "1", "4", "2"]
    assert {one["video_id_a"] for one in rows} == {rows[0]["video_id_a"]}
    with pytest.raises(InputError, match="'dynamic degree' is not an integer grade"):
        read(tmp_path, [row | {"dynamic degree": 1.5}], "video_feedback")


def test_evalmuse_takes_the_mean_and_two_agreeing_annotators(tmp_path: Path) -> None:
    row = {
        "prompt": "a red fox",
        "img_path": "x/1.png",
        "total_score": [4, 5, 4],
        "element_score": {"red (color)": [1, 0, 1], "fox (animal)": [0, 0, 1]},
    }
    as_text = row | {"element_score": str(row["element_score"]), "img_path": "x/2.png"}
    rows = read(tmp_path, [row, as_text], "evalmuse")
    expected = {"": "4.33", "element red (color)": "1", "element fox (animal)": "0"}
    assert {one["dimension"]: one["answer"] for one in rows[:3]} == expected
    assert {one["dimension"]: one["answer"] for one in rows[3:]} == expected


def pictures(folder: Path, names: list[str], size: int = 8) -> list[np.ndarray]:
    made = []
    for number, name in enumerate(names):
        frame = np.full((size, size, 3), 20 * number, np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(folder / name)
        made.append(frame)
    return made


def test_items_come_with_their_clips_and_frames_become_one(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    names = [f"v/{number}.png" for number in range(4)]
    frames = pictures(folder, names)
    question = "<image>" * 4 + f"{TASK}Text Caption: [a fox]"
    rows = [talk(question, "Video 1 is better than Video 2.", images=names)]
    rows += [talk(f"{TASK}Text Caption: [{n}]", "Final Score: 3", image=names[0]) for n in range(12)]
    rows += [talk(f"{TASK}Text Caption: [lost]", "Final Score: 3", image="gone.png")]
    options = {
        "filepath": str(written(tmp_path, rows)),
        "format": "unified_reward_items",
        "videos": {"path": str(folder)},
    }
    items = LabelledItemsDataset(**options).load()
    assert len(items) == 13, "the item without its file is left out"
    assert np.array_equal(read_frames(folder / items["video_path_a"][0]), np.stack(frames[:2]))
    assert np.array_equal(read_frames(folder / items["video_path_b"][0]), np.stack(frames[2:]))
    assert items["video_path_a"][1] == names[0]
    clip = folder / items["video_path_a"][0]
    before = clip.stat().st_mtime_ns
    clips = LabelledItemClipsDataset(**options).load()
    assert clip.stat().st_mtime_ns == before, "a clip is made once"
    index = index_given_clips(clips, {name: folder / name for name in clips["file"]}, source="items")
    VideoIndex.validate(index)
    assert set(index["status"]) == {"ok"}
    assert set(items["video_id_a"]) | set(items["video_id_b"]) - {""} == set(index["video_id"])


def test_frames_of_several_sizes_are_no_clip(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    pictures(folder, ["a.png"])
    pictures(folder, ["b.png"], size=16)
    rows = [talk(f"{TASK}Text Prompt: [a fox]", "Final Score: 3", images=["a.png", "b.png"])]
    dataset = LabelledItemsDataset(
        filepath=str(written(tmp_path, rows)), format="unified_reward_items", videos={"path": str(folder)}
    )
    with pytest.raises(DatasetError, match="not pictures of the same size"):
        dataset.load()


def test_images_within_a_table_are_written_to_files(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    pictures(tmp_path, ["x.png"])
    content = (tmp_path / "x.png").read_bytes()
    question = f"<image>{TASK}Question: [q]\nThe first response: [a]\nThe second response: [b]"
    row = talk(question, "The first response is better.") | {"id": "n1", "image": {"bytes": content, "path": None}}
    path = tmp_path / "items.parquet"
    pd.DataFrame([row]).to_parquet(path)
    items = LabelledItemsDataset(filepath=str(path), format="llava_critic", videos={"path": str(folder)}).load()
    assert (folder / items["video_path_a"][0]).read_bytes() == content
