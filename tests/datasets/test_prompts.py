"""Catalog entries for prompts."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from kedro.io import DataCatalog, DatasetError
from PIL import Image

from vr_pipeline.datasets.prompts import PromptFileDataset
from vr_pipeline.errors import InputError


def test_loads_previews_and_warns_of_bad_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,source\na cat,web\nbroken\n", encoding="utf-8")
    dataset = PromptFileDataset(filepath=str(path))
    with caplog.at_level(logging.WARNING, logger="vr_pipeline"):
        table = dataset.load()
    assert table["prompt"].tolist() == ["a cat", ""]
    assert "1 of 2 rows are left out, the first is row 3" in caplog.text
    assert dataset.preview(nrows=1)["data"] == [[2, "a cat", "web", ""]]
    assert dataset.exists()
    assert not PromptFileDataset(filepath=str(tmp_path / "none.csv")).exists()


def test_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        PromptFileDataset(filepath=str(tmp_path / "p.csv")).save("anything")


def test_options_reach_the_reader_and_errors_keep_their_message(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("title\na cat\n", encoding="utf-8")
    entry = {"type": "vr_pipeline.datasets.prompts.PromptFileDataset", "filepath": str(path)}
    with pytest.raises(DatasetError, match="there is no column 'prompt'") as caught:
        DataCatalog.from_config({"raw_prompts": entry}).load("raw_prompts")
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    assert isinstance(cause, InputError)
    assert (cause.file, cause.row, cause.field) == (path, 1, "prompt")
    catalog = DataCatalog.from_config({"raw_prompts": {**entry, "prompt_column": "title"}})
    assert catalog.load("raw_prompts")["prompt"].tolist() == ["a cat"]


def test_first_frames_are_checked_and_bad_ones_are_left_out_with_the_reason(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (80, 70), (9, 8, 7)).save(images / "cat.png")
    Image.new("RGB", (30, 70)).save(images / "thin.png")
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,Picture\na cat,cat.png\na cat runs,thin.png\na dog,none.png\na hen,\n", encoding="utf-8")
    options = {"filepath": str(path), "image_folder": str(images), "image_column": "picture"}
    table = PromptFileDataset(**options).load()
    digest = hashlib.sha256((images / "cat.png").read_bytes()).hexdigest()
    assert table["image"].tolist() == [f"{digest}:{images.as_posix()}/cat.png", "", "", ""]
    for problem, reason in zip(
        table["problem"], ["", "too small", "does not exist", "'picture' has no value"], strict=True
    ):
        assert reason in problem
        assert bool(reason) == bool(problem)
    assert len(PromptFileDataset(**options, min_image_side=30).load().query("problem == ''")) == 2
    with pytest.raises(
        DatasetError, match=r"row 1, field 'image': there is no column 'image'.*image_column of raw_prompts"
    ):
        PromptFileDataset(filepath=str(path), image_folder=str(images)).load()
    # Without a folder the column is none of ours.
    assert "image" not in PromptFileDataset(filepath=str(path)).load()
