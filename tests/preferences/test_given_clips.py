"""Which clip belongs to which prompt, by a column or by the names of the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.clip_names import ClipNames
from vr_pipeline.preferences.given_clips import examine_given_clips, read_given_clips
from vr_pipeline.preferences.rows import file_identifier

FILES = ["a cat-0.mp4", "a cat-1.mp4", "deep/A_Cat!.webm", "route 66-0.mp4", "route 66.mp4", "route.mp4", "other.mp4"]


def names(folder: Path) -> ClipNames:
    return ClipNames(folder / "clips", FILES, folder)


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_files_are_named_after_their_prompts(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompts.{suffix}"
    head = ["Prompt"] if suffix == "csv" else []
    path.write_text("\n".join([*head, "route 66", "a cat", "a dog", "a cat"]))
    table, problems, strangers = examine_given_clips(path, names(tmp_path), FILES)
    assert problems == []
    assert strangers == ["route.mp4", "other.mp4"]
    assert table[["prompt", "file", "sample_index"]].values.tolist() == [
        ["route 66", "route 66-0.mp4", 0],
        ["route 66", "route 66.mp4", 1],  # the number belongs to the prompt
        ["a cat", "a cat-0.mp4", 0],
        ["a cat", "a cat-1.mp4", 1],
        ["a cat", "deep/A_Cat!.webm", 2],
    ]
    assert table["video_id"].is_unique
    assert table["video_id"][0] == file_identifier("route 66", "route 66-0.mp4")


def test_a_column_names_the_clips(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"caption": "a cat", "Video": "other.mp4", "generator": "mine"}\n'
        '{"caption": "a cat", "Video": "clips/route.mp4"}\n'
        '{"caption": "a cat", "Video": "other.mp4", "generator": "mine"}\n'
        '{"caption": "a dog", "Video": null}\n'
        '{"caption": "", "Video": "route.mp4"}\n'
        '{"caption": "a dog", "Video": "rute.mp4"}\n'
    )
    table, problems, strangers = examine_given_clips(path, names(tmp_path), FILES)
    assert table[["prompt", "file", "generator"]].values.tolist() == [
        ["a cat", "other.mp4", "mine"],
        ["a cat", "route.mp4", "given"],
    ]
    assert [(problem.row, problem.field) for problem in problems] == [(5, "prompt"), (6, "Video")]
    assert "perhaps route.mp4 is meant" in str(problems[1])
    assert len(strangers) == 5
    with pytest.raises(InputError, match="the prompt is empty"):
        read_given_clips(path, names(tmp_path), FILES)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.csv", "words\na cat\n", "there is no column 'prompt'"),
        ("p.txt", "a cow\n", "name the files by their prompts"),
        ("p.doc", "a cow\n", "files of type '.doc' are not read"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=expected):
        read_given_clips(tmp_path / name, names(tmp_path), FILES)
