"""Catalog entries for prompts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from kedro.io import DataCatalog, DatasetError

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
