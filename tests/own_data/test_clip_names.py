"""Names of clips as people write them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from vr_pipeline.datasets.preferences import PreferenceClipsDataset, PreferenceDataset
from vr_pipeline.preferences.clip_names import ClipNames
from vr_pipeline.preferences.rows import file_identifier
from vr_pipeline.schemas import HumanPreferences, PreferenceClips


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "deep/c.webm", "deep/a.mp4", "one/x.mp4", "two/x.mp4", "a b.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).write_bytes(b"x")
    return tmp_path / "clips"


def test_a_clip_is_found_by_all_its_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")]
    names = ClipNames(folder, files, folder.parent)
    for name, expected in {
        "b.mp4": "b.mp4",
        " ./b.mp4 ": "b.mp4",
        "b": "b.mp4",
        "deep/c.webm": "deep/c.webm",
        "deep\\c.webm": "deep/c.webm",
        "c.webm": "deep/c.webm",
        "c": "deep/c.webm",
        "a.mp4": "a.mp4",  # the path within the folder goes before the file's name elsewhere
        "clips/b.mp4": "b.mp4",
        "clips/../clips/b.mp4": "b.mp4",
        str(folder / "deep" / "a.mp4"): "deep/a.mp4",
        "a b": "a b.mp4",
    }.items():
        assert names.find(name) == expected, name
    monkeypatch.chdir(folder / "deep")
    assert names.find("../b.mp4") == "b.mp4"
    for name in ("x", "x.mp4", "missing.mp4", "", "../clips2/b.mp4", "/etc/passwd", "B.mp4"):
        assert names.find(name) is None, name
    assert "one/x.mp4" in names.why_not("x")[0]
    assert "two/x.mp4" in names.why_not("x")[0]
    assert "perhaps b.mp4" in names.why_not("bb.mp4")[0]


def test_one_file_under_several_spellings_is_one_clip(folder: Path) -> None:
    table = folder.parent / "preferences.csv"
    table.write_text(
        "prompt,video_path_a,video_path_b,preference\n"
        "a cat,b.mp4,deep/c.webm,a\n"
        "a cat,clips/deep/c.webm,./b.mp4,b\n"
        "a dog,b,c,tie\n"
    )
    options = {"filepath": str(table), "videos": {"path": str(folder)}}
    preferences = PreferenceDataset(**options).load()
    HumanPreferences.validate(preferences)
    assert list(preferences["video_path_a"]) == ["b.mp4", "deep/c.webm", "b.mp4"]
    assert preferences["pair_id"].nunique() == 2
    assert preferences.loc[0, "video_id_a"] == preferences.loc[1, "video_id_b"] == file_identifier("a cat", "b.mp4")
    assert preferences.loc[2, "video_id_a"] == file_identifier("a dog", "b.mp4")
    clips = PreferenceClipsDataset(**options).load()
    PreferenceClips.validate(clips)
    assert sorted(zip(clips["prompt"], clips["file"], strict=True)) == [
        ("a cat", "b.mp4"),
        ("a cat", "deep/c.webm"),
        ("a dog", "b.mp4"),
        ("a dog", "deep/c.webm"),
    ]


def test_identifiers_and_pairs_that_the_user_gave_stay(folder: Path) -> None:
    table = folder.parent / "preferences.csv"
    table.write_text("pair_id,prompt,video_id_a,video_id_b,preference\nmine,a cat,a,c,a\n")
    loaded = PreferenceDataset(filepath=str(table), videos={"path": str(folder)}).load()
    assert loaded.loc[0, ["pair_id", "video_id_a", "video_id_b"]].tolist() == ["mine", "a", "c"]
    assert loaded.loc[0, ["video_path_a", "video_path_b"]].tolist() == ["a", "deep/c.webm"]  # 'a' fits two files


def test_without_a_folder_nothing_changes(folder: Path) -> None:
    table = folder.parent / "preferences.csv"
    table.write_text("prompt,video_path_a,video_path_b,preference\na cat,clips/b.mp4,c,a\n")
    plain = PreferenceDataset(filepath=str(table)).load()
    assert plain.loc[0, "video_path_a"] == "clips/b.mp4"
    pd.testing.assert_frame_equal(plain, PreferenceDataset(filepath=str(table), videos=None).load())
