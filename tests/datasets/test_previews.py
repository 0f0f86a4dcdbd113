"""Previews of datasets for Kedro-Viz."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from vr_pipeline.datasets.clips import ClipFolderDataset
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.datasets.previews import COLUMNS, contact_sheet, spread, table_preview
from vr_pipeline.video.write import write_video
from vr_pipeline.work import WorkItem, WorkPlan


def picture(sheet: str) -> np.ndarray:
    return (imread(io.BytesIO(base64.b64decode(sheet)))[..., :3] * 255).round().astype(np.uint8)


@given(st.lists(st.text(min_size=1), unique=True, max_size=80), st.integers(1, 30))
def test_chosen_names_are_spread_and_in_order(names, number):
    chosen = spread(names, number)
    assert len(chosen) == min(number, len(names))
    assert [name for name in names if name in chosen] == chosen
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (names[0], names[-1])


@pytest.mark.parametrize("shape", [(10, 20), (200, 100), (7, 7), (480, 720)])
def test_a_cell_shows_the_middle_frame_whole_and_in_shape(shape):
    height, width = shape
    clip = np.zeros((3, *shape, 3), np.uint8)
    clip[1, : height // 2] = (250, 0, 0)
    clip[1, height // 2 :] = (0, 0, 250)
    sheet = picture(contact_sheet([clip]))
    coloured = np.argwhere((sheet != 128).any(axis=-1))
    size = coloured.max(axis=0) - coloured.min(axis=0) + 1
    assert max(size) == 96
    assert size[0] / size[1] == pytest.approx(height / width, rel=0.05)
    top, left = coloured.min(axis=0)
    assert sheet[top + 2, left + 2].tolist() == [250, 0, 0]
    assert sheet[top + size[0] - 2, left + 2].tolist() == [0, 0, 250]


def test_the_same_clips_give_the_same_bytes_in_rows():
    clips = [np.full((2, 8, 8, 3), value, np.uint8) for value in range(0, 13 * 9, 9)]
    assert contact_sheet(clips) == contact_sheet(clips)
    sheet = picture(contact_sheet(clips))
    assert sheet.shape[1] > sheet.shape[0]
    assert sheet[150, 50].tolist() == [9 * COLUMNS] * 3  # the first of the second row
    assert picture(contact_sheet([])).shape[2] == 3


def test_tables_are_json_without_nan():
    preview = table_preview(pd.DataFrame({"a": [1.0, np.nan, 2.0], "b": ["x", None, "y"]}), rows=2)
    assert json.loads(json.dumps(preview))["data"] == [[1.0, "x"], [None, None]]


def test_folders_show_clips_or_records(tmp_path):
    items = [WorkItem(f"k{number}", "1") for number in range(3)]
    clips = ManifestFolderDataset(path=str(tmp_path / "clips"), format={"type": "video", "fps": 8})
    clips.save(WorkPlan(items, lambda _, batch: [np.full((2, 16, 16, 3), 200, np.uint8) for _ in batch]))
    assert picture(clips.preview())[20, 20].tolist() == [200, 200, 200]
    records = ManifestFolderDataset(path=str(tmp_path / "records"), format={"type": "json"})
    records.save(WorkPlan(items, lambda _, batch: [{} for _ in batch]))
    assert [row[0] for row in records.preview()["data"]] == ["k0", "k1", "k2"]


def test_given_clips_that_do_not_decode_are_left_out(tmp_path):
    write_video(tmp_path / "good.mp4", np.full((4, 16, 16, 3), 90, np.uint8), fps=8)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert picture(ClipFolderDataset(path=str(tmp_path)).preview())[20, 20].tolist() == [90, 90, 90]
