"""A folder is replaced as a whole or not at all."""

from __future__ import annotations

import pytest

from vr_pipeline.datasets.folders import replacing


def test_the_new_folder_takes_the_place_of_the_old(tmp_path):
    place = tmp_path / "model"
    for content in ("first", "second"):
        with replacing(place) as folder:
            (folder / content).write_text(content)
        assert [path.name for path in place.iterdir()] == [content]
        assert list(tmp_path.iterdir()) == [place]


def test_an_error_leaves_the_old_folder(tmp_path):
    place = tmp_path / "model"
    with replacing(place) as folder:
        (folder / "old").write_text("old")

    def fail():
        with replacing(place) as folder:
            (folder / "half").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [path.name for path in place.iterdir()] == ["old"]
