"""Tables that users bring, as catalog entries."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from kedro.io import DataCatalog

from vr_pipeline.datasets.tables import TableFileDataset
from vr_pipeline.errors import InputError
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.schemas import PreferenceClips


def test_names_of_clips_keep_their_zeros_and_na_is_a_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "clips.csv"
    path.write_text('video_id;prompt;file;seed\n007;NA;a.mp4;9007199254740993\n"1e5";null;b.mp4;\nshort\n')
    entry = {"type": "vr_pipeline.datasets.tables.TableFileDataset", "filepath": str(path)}
    with caplog.at_level(logging.WARNING):
        table = PreferenceClips.validate(DataCatalog.from_config({"clips": entry}).load("clips"))
    assert "1 of 3 rows are left out" in caplog.text
    assert table[["video_id", "prompt"]].to_numpy().tolist() == [["007", "NA"], ["1e5", "null"]]
    index = index_given_clips(table, {}, source="clips")
    assert index[["video_id", "seed"]].to_numpy().tolist() == [["007", 9007199254740993], ["1e5", 0]]
    with pytest.raises(InputError, match="field 'seed': clip '007' has 'x', which is no whole number"):
        index_given_clips(table.assign(seed=["x", "1"]), {}, source="clips")
    assert TableFileDataset(filepath=str(path)).preview() is not None
