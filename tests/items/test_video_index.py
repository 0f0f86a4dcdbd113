"""Indices of clips: what is known of each, and what is set aside with its reason."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.datasets.clips import ClipFolder
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.contact_sheet import contact_sheet
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.items.video_index import COLUMNS, index_given_clips, index_made_clips
from vr_pipeline.schemas import VideoIndex
from vr_pipeline.video.write import write_video
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good clips, a truncated one, one that is no video and an empty one."""
    folder = tmp_path_factory.mktemp("clips")
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 64, 3), dtype=np.uint8)
    write_video(folder / "good.mp4", frames, fps=8)
    write_video(folder / "other.mp4", frames[:5, :, :32], fps=4)
    content = (folder / "good.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(content[: len(content) // 2])
    (folder / "text.mp4").write_bytes(b"this is no video\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def given(*files: str, **columns: object) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "video_id": [f"v{row}" for row in range(len(files))],
            "prompt": [f"Prompt {row}" for row in range(len(files))],
            "file": files,
            **columns,
        }
    )


def test_good_clips_are_described(folder: Path) -> None:
    table = index_given_clips(given("good.mp4", "other.mp4"), ClipFolder(folder), source="clips.csv")
    VideoIndex.validate(table)
    assert list(table.columns) == COLUMNS
    first, second = table.to_dict("records")
    assert (first["num_frames"], first["height"], first["width"], first["fps"]) == (9, 32, 64, 8.0)
    assert (second["num_frames"], second["height"], second["width"], second["fps"]) == (5, 32, 32, 4.0)
    assert first["sha256"] == hashlib.sha256((folder / "good.mp4").read_bytes()).hexdigest()
    assert first["prompt_id"] == prompt_id("prompt 0")
    assert (first["status"], first["error"], first["generator"]) == ("ok", "", "given")


def test_clips_that_cannot_be_read_are_set_aside_with_the_reason_and_the_rest_goes_on(folder: Path) -> None:
    table = index_given_clips(
        given("truncated.mp4", "good.mp4", "empty.mp4", "text.mp4", "nowhere.mp4", "../good.mp4"),
        ClipFolder(folder),
        source="clips.csv",
    )
    VideoIndex.validate(table)
    assert table["status"].tolist() == ["failed", "ok", "failed", "failed", "failed", "failed"]
    failed = table[table["status"] == "failed"]
    assert (failed["error"].str.len() > 10).all()
    for name in ("truncated.mp4", "empty.mp4", "text.mp4"):
        assert failed.set_index("path").loc[name, "error"].count(name) >= 1
    assert failed.set_index("path").loc["nowhere.mp4", "error"] == "there is no such file in the folder of clips"
    assert (failed[["num_frames", "height", "width", "fps"]] == 0).all(axis=None)
    assert table["video_id"].tolist() == [f"v{row}" for row in range(6)]


def test_what_is_known_further_is_kept_and_blank_cells_are_not_known(folder: Path) -> None:
    table = index_given_clips(
        given("good.mp4", "good.mp4", sample_index=[3, None], seed=[7, None], generator=["model", None]),
        ClipFolder(folder),
        source="clips.csv",
    )
    assert table["sample_index"].tolist() == [3, 0]
    assert table["seed"].tolist() == [7, 0]
    assert table["generator"].tolist() == ["model", "given"]


def test_a_missing_column_a_blank_cell_and_a_repeated_identifier_are_named(folder: Path) -> None:
    clips = ClipFolder(folder)
    for column in ("video_id", "prompt", "file"):
        with pytest.raises(InputError, match=rf"clips\.csv, field '{column}': a column is missing"):
            index_given_clips(given("good.mp4").drop(columns=column), clips, source="clips.csv")
    with pytest.raises(InputError, match=r"clips\.csv, row 3, field 'prompt': a cell is empty"):
        index_given_clips(given("good.mp4", "good.mp4", prompt=["a", None]), clips, source="clips.csv")
    with pytest.raises(InputError, match=r"row 4, field 'video_id': video_id 'x' appears a second time"):
        index_given_clips(
            given("good.mp4", "good.mp4", "good.mp4", video_id=["x", "y", "x"]), clips, source="clips.csv"
        )


def made(tmp_path: Path, fail: tuple[int, ...]) -> ItemFolder:
    items = [
        WorkItem(
            key=f"clip{row}",
            identity=str(row),
            metadata={
                "prompt_id": f"p{1 - row // 2}",
                "prompt": f"prompt {1 - row // 2}",
                "sample_index": row % 2,
                "seed": 2**62 + row,
                "generator": "toy",
                "fps": 8.0,
                "policy": "original",
            },
        )
        for row in range(4)
    ]

    def make(_: object, batch: list[WorkItem]) -> list[object]:
        return [
            ItemFailure("out of luck") if int(item.identity) in fail else np.full((4, 16, 16, 3), 60, np.uint8)
            for item in batch
        ]

    dataset = ManifestFolderDataset(path=str(tmp_path / "made"), format={"type": "video", "enlarge": 4})
    dataset.save(WorkPlan(items, make, batch_size=2))  # type: ignore[arg-type]
    return dataset.load()


@pytest.mark.parametrize("fail", [(), (2,), (0, 1, 2)])
def test_clips_made_here_are_indexed_in_order_of_prompt_and_sample(tmp_path: Path, fail: tuple[int, ...]) -> None:
    folder = made(tmp_path, fail)
    table = index_made_clips(folder)
    checked = VideoIndex.validate(table)
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    assert "policy" in table
    assert table["video_id"].tolist() == ["clip2", "clip3", "clip0", "clip1"]
    by_id = checked.set_index("video_id")
    for row in range(4):
        name = f"clip{row}"
        failed = row in fail
        assert by_id.loc[name, "status"] == ("failed" if failed else "ok")
        assert by_id.loc[name, "error"] == ("out of luck" if failed else "")
        assert by_id.loc[name, "num_frames"] == (0 if failed else 4)
        # The index describes the file; a seed of 63 bits keeps all of them.
        assert by_id.loc[name, "width"] == (0 if failed else 64)
        assert by_id.loc[name, "seed"] == 2**62 + row
        assert by_id.loc[name, "fps"] >= 0


def test_the_contact_sheet_shows_every_prompt_and_survives_without_clips(tmp_path: Path) -> None:
    folder = made(tmp_path, (3,))
    index = index_made_clips(folder)
    figure = contact_sheet(folder, index, samples=2)
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts == ["prompt 0", "prompt 1"]
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    assert len(shown) == 3
    assert all(picture.shape == (16, 48, 3) for picture in shown)
    assert {axis.get_title() for axis in figure.axes} == {""}
    two = index.assign(generator=["x", "y", "x", "y"])
    titles = [axis.get_title() for axis in contact_sheet(folder, two, samples=2).axes if axis.images]
    assert titles == two.loc[two["status"] == "ok"].sort_values(["prompt", "sample_index"])["generator"].tolist()
    assert not contact_sheet(folder, index.assign(status="failed")).axes
