"""Tables that users bring, as catalog entries."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DataCatalog, DatasetError

from vr_pipeline.datasets.tables import TableFileDataset, TablePartsDataset
from vr_pipeline.errors import InputError
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.schemas import PreferenceClips
from vr_pipeline.schemas.parts import TableParts


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


def test_a_table_in_parts_comes_back_and_is_checked_part_by_part(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    columns = {"question_id": "q", "p_yes": 0.25, "answer": False, "outside_mass": 0.5, "gated": False}
    parts = [pd.DataFrame({"video_id": [f"v{n}", f"w{n}"], **columns}) for n in range(3)]
    catalog = DataCatalog.from_config(
        {
            "answers": {
                "type": "vr_pipeline.datasets.tables.TablePartsDataset",
                "filepath": str(path),
                "validator": "vr_pipeline.schemas.ChecklistAnswers",
            }
        }
    )
    catalog.save("answers", TableParts(lambda: parts))
    loaded = catalog.load("answers")
    assert len(list(loaded)) == 3
    pd.testing.assert_frame_equal(loaded.whole(), pd.concat(parts, ignore_index=True))
    assert TablePartsDataset(filepath=str(path)).preview() is not None
    before = path.read_bytes()
    with pytest.raises(DatasetError, match="p_yes"):
        catalog.save("answers", TableParts(lambda: [parts[0], parts[1].assign(p_yes=1.5)]))
    assert path.read_bytes() == before
    with pytest.raises(DatasetError, match="no rows"):
        catalog.save("answers", TableParts(list))
    # A table of one part is the file that pandas writes.
    catalog.save("answers", parts[0])
    parts[0].to_parquet(tmp_path / "pandas.parquet", index=False)
    assert path.read_bytes() == (tmp_path / "pandas.parquet").read_bytes()
    path.unlink()
    with pytest.raises(DatasetError, match="the table is missing"):
        catalog.load("answers")
