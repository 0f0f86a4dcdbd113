"""Which files are meant by paths, patterns and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from vr_pipeline.video.find import find_media
from vr_pipeline.video.read import VideoReadError


def test_find_media(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    assert [path.name for path in find_media([tmp_path])] == ["a.png", "b.mp4"]
    assert [path.name for path in find_media([str(tmp_path / "*.mp4"), tmp_path / "a.png", tmp_path])] == [
        "b.mp4",
        "a.png",
    ]
    with pytest.raises(VideoReadError, match="no file"):
        find_media([str(tmp_path / "*.mov")])
    with pytest.raises(VideoReadError, match="holds no videos"):
        find_media([tmp_path / "sub"])
