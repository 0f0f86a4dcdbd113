"""Pairs that name winner and loser: every form they come in, and how the form is recognised."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vr_pipeline.datasets.preferences import PreferenceDataset
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.pairs.export import unified_reward_list, video_dpo_list, write_list
from vr_pipeline.preferences.detection import detect_format
from vr_pipeline.preferences.embedded import write_embedded
from vr_pipeline.preferences.formats import FORMATS, read_preferences
from vr_pipeline.preferences.winners import prompts_of_folders
from vr_pipeline.schemas import HumanPreferences
from vr_pipeline.storage.tables import read_entries
from vr_pipeline.video.read import read_frames
from vr_pipeline.video.write import write_video


def decided(path: Path, format: str) -> list[tuple[str, str, str]]:
    """Prompt, winner and loser of every row of a file."""
    table = read_preferences(path, format)
    HumanPreferences.validate(table)
    return [
        (prompt, *((a, b) if label == "a" else (b, a)))
        for prompt, a, b, label in zip(
            table["prompt"], table["video_path_a"], table["video_path_b"], table["preference"], strict=True
        )
    ]


names = st.text("abcdefgé 1_-.", min_size=1, max_size=12).map(lambda text: f"x{text.strip()}.mp4")
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    str.strip
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(texts, names, names, st.floats(0.001, 100)).filter(lambda pair: pair[1] != pair[2]),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_written_for_other_trainers_is_read_back_as_the_same_pairs(
    tmp_path: Path, pairs: list[tuple[str, str, str, float]]
) -> None:
    clips, chosen = [], []
    for number, (prompt, winner, loser, margin) in enumerate(pairs):
        clips += [(f"{number}w", f"{number}/{winner}", prompt), (f"{number}l", f"{number}/{loser}", prompt)]
        chosen.append((f"{number}w", f"{number}l", margin))
    index = pd.DataFrame(clips, columns=["video_id", "path", "prompt"])
    table = pd.DataFrame(chosen, columns=["winner_video_id", "loser_video_id", "margin"])
    read = {}
    for format, entries in (
        ("video_dpo", video_dpo_list(table, index)),
        ("unified_reward", unified_reward_list(table, index)),
    ):
        path = tmp_path / f"{format}.json"
        write_list(entries, path)
        assert detect_format(path) == format
        read[format] = decided(path, format)
    plain = read_preferences(tmp_path / "video_dpo.json", "video_dpo")
    assert plain["score"].tolist() == [margin for *_, margin in pairs]
    first: dict[str, str] = {}
    expected = [
        (first.setdefault(prompt_id(prompt), prompt), f"{number}/{winner}".strip(), f"{number}/{loser}".strip())
        for number, (prompt, winner, loser, _) in enumerate(pairs)
    ]
    assert read["video_dpo"] == read["unified_reward"] == expected


def test_videodpo_numbers_stand_for_its_folders(tmp_path: Path) -> None:
    entry = {"video1": 24, "video2": 7, "frame_caption": "a cat", "score": 1}
    (tmp_path / "pair.json").write_text(json.dumps([entry]))
    assert decided(tmp_path / "pair.json", "video_dpo") == [("a cat", "winvideos/000012.mp4", "losevideos/000003.mp4")]


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.csv", "prompt,winner,loser\na cat,1.mp4,2.mp4\n", "winner_loser"),
        ("a.csv", "Prompt;Winner;Loser;annotator\na cat;1.mp4;2.mp4;x\n", "winner_loser"),
        ("a.csv", "prompt,video_path_a,video_path_b,preference\na cat,1.mp4,2.mp4,a\n", "plain"),
        ("a.csv", "prompt,path_A,path_B,VQ,Overall\na cat,1.mp4,2.mp4,A,A\n", "videogen_rewardbench"),
        ("a.json", [{"prompt": "x", "left_video": "1", "right_video": "2", "vote_type": "leftvote"}], "genai_bench"),
        ("a.json", [{"prompt": "x", "image_path": ["1", "2"], "rank": [1, 2]}], "hpdv2"),
        ("a.csv", "prompt,prompt_id,image_path,rank\nx,1,2.png,1\n", "imagerewarddb"),
        ("a.jsonl", [{"event": "study", "study": "s", "source": "clips"}], "annotations"),
    ],
)
def test_the_format_is_known_by_the_content(tmp_path: Path, name: str, content: Any, format: str) -> None:
    path = tmp_path / name
    lines = name.endswith(".jsonl")
    path.write_text(content if isinstance(content, str) else json.dumps(content[0] if lines else content))
    assert detect_format(path) == format


def test_a_file_of_no_known_format_is_rejected_with_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,good,bad\na cat,1.mp4,2.mp4\n")
    with pytest.raises(InputError, match=r"a\.csv.*text, good, bad.*prompt, winner and loser.*--pairs-format"):
        detect_format(path)
    path.write_text("prompt,winner,loser,chosen,rejected\na cat,1.mp4,2.mp4,1.mp4,2.mp4\n")
    with pytest.raises(InputError, match="winner_loser and unified_reward"):
        detect_format(path)


def test_the_same_clip_twice_is_rejected_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,winner,loser\na cat,1.mp4,2.mp4\na dog,3.mp4,./3.mp4\n")
    table = read_preferences(path, "winner_loser")
    assert (len(table), table.attrs["rejected"]) == (1, 1)
    path.write_text("prompt,winner,loser\na dog,3.mp4,3.mp4\n")
    with pytest.raises(InputError, match=r"row 2.*a clip is compared with itself"):
        read_preferences(path, "winner_loser")


def picture(value: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("uids", [True, False])
def test_embedded_images_are_written_under_the_names_that_the_reader_gives(tmp_path: Path, uids: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"caption": "a", "jpg_0": picture(1), "jpg_1": picture(2, "JPEG"), "label_0": 1.0, "label_1": 0.0},
        {"caption": "b", "jpg_0": picture(3), "jpg_1": picture(1), "label_0": 0.5, "label_1": 0.5},
    ]
    if uids:
        for number, row in enumerate(rows):
            row |= {"image_0_uid": f"u{2 * number}", "image_1_uid": f"../u{2 * number + 1}"}
    path = tmp_path / "pick.parquet"
    pd.DataFrame(rows).to_parquet(path)
    assert detect_format(path) == "pick_a_pic"
    folder = tmp_path / "clips"
    count = write_embedded(read_entries(path), FORMATS["pick_a_pic"].embedded, folder)
    assert count == (4 if uids else 3)
    assert not (tmp_path / "u1.jpg").exists(), "a name leads out of the folder"
    options = {"filepath": str(path), "format": "pick_a_pic", "videos": {"path": str(folder)}}
    table = PreferenceDataset(**options).load()  # type: ignore[arg-type]
    assert table["preference"].tolist() == ["a", "tie"]
    for column, value in (("video_path_a", 1), ("video_path_b", 2)):
        frames = read_frames(folder / table[column][0])
        assert frames.shape == (1, 8, 8, 3)
        assert abs(int(frames.mean()) - value) <= 1


def test_images_as_the_library_datasets_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    row = {
        "caption": "a",
        "chosen": {"bytes": picture(1), "path": "x.png"},
        "rejected": {"bytes": None, "path": "y.png"},
    }
    pd.DataFrame([row]).to_parquet(path)
    ((_, winner, loser),) = decided(path, detect_format(path))
    assert winner.startswith("embedded/")
    assert loser == "y.png"


def clip(path: Path) -> None:
    write_video(path, np.zeros((2, 16, 16, 3), dtype=np.uint8), fps=8)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for side in "wl":
        for name in ("a", "deep/b"):
            clip(tmp_path / "pairs" / side / f"{name}.mp4")
    return tmp_path / "pairs"


EXPECTED = [("a cat", "w/a.mp4", "l/a.mp4"), ("a dog", "w/deep/b.mp4", "l/deep/b.mp4")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", "file,prompt\na.mp4,a cat\nw/deep/b.mp4,a dog\n"),
        ("metadata.jsonl", '{"file_name": "deep/b", "text": "a dog"}\n{"file_name": "a.mp4", "text": "a cat"}'),
        ("captions.json", '{"a.mp4": "a cat", "deep/b.mp4": "a dog"}'),
    ],
)
def test_two_folders_with_a_table_of_prompts(folders: Path, name: str, content: str) -> None:
    (folders / name).write_text(content)
    assert detect_format(folders) == "folders"
    assert decided(folders, "folders") == EXPECTED
    assert prompts_of_folders(folders) == name


def test_two_folders_with_text_files(folders: Path) -> None:
    (folders / "w" / "a.txt").write_text("a cat\n")
    (folders / "deep").mkdir()
    (folders / "deep" / "b.txt").write_text("a dog")
    assert decided(folders, "folders") == EXPECTED
    assert "text files" in prompts_of_folders(folders)
    clip(folders / "w" / "c.mp4")
    (folders / "w" / "c.txt").write_text("a cow")
    assert decided(folders, "folders")[1] == ("a cow", "w/c.mp4", "l/c.mp4")  # a clip that is missing
    (folders / "deep" / "b.txt").unlink()
    (folders / "w" / "a.txt").unlink()
    with pytest.raises(InputError, match=r"no prompt for 'a' \(no w/a.txt"):
        read_preferences(folders, "folders")


def test_folders_that_cannot_be_used(folders: Path, tmp_path: Path) -> None:
    (folders / "captions.csv").write_text("number,prompt\n1,a cat\n")
    with pytest.raises(InputError, match=r"captions.csv.*column 'file'.* is missing"):
        read_preferences(folders, "folders")
    clip(folders / "w" / "a.mkv")
    with pytest.raises(InputError, match="differ only in their suffix"):
        read_preferences(folders, "folders")
    with pytest.raises(InputError, match="folder 'w' is missing"):
        read_preferences(tmp_path, "folders")
