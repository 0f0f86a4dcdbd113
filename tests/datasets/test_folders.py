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


def test_files_that_only_their_owner_could_read_are_readable(tmp_path):
    with replacing(tmp_path / "model") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_text("x")
        (folder / "part" / "weights").chmod(0o600)
    assert (tmp_path / "model" / "part" / "weights").stat().st_mode & 0o777 == 0o644


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
