"""Folders of given clips and the oracle's dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError

from vr_pipeline.datasets.clips import ClipFolderDataset
from vr_pipeline.datasets.oracle import OracleDataset


def test_clips_are_found_by_their_path_within_the_folder(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.mp4", "deep/a.webm", "deep/er/c.GIF", "list.csv", "notes.TXT", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"x")
    folder = ClipFolderDataset(path=str(tmp_path)).load()
    assert list(folder) == ["b.mp4", "deep/a.webm", "deep/er/c.GIF"]
    assert len(folder) == 3
    assert folder["deep/a.webm"] == tmp_path / "deep" / "a.webm"
    assert folder.get("missing.mp4") is None
    # A name cannot lead out of the folder, as only files that were found in it are known.
    (tmp_path.parent / "outside.mp4").write_bytes(b"x")
    assert folder.get("../outside.mp4") is None


def test_a_missing_folder_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    dataset = ClipFolderDataset(path=str(tmp_path / "nothing"))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="no such folder"):
        dataset.load()
    with pytest.raises((DatasetError, NotImplementedError), match="only read"):
        dataset.save(object())  # type: ignore[arg-type]


def test_where_there_is_no_oracle_none_is_loaded(tmp_path: Path) -> None:
    absent = OracleDataset(filepath=None)
    assert absent.exists()
    assert absent.load() is None
    missing = OracleDataset(filepath=str(tmp_path / "oracle.safetensors"))
    assert not missing.exists()
    with pytest.raises(DatasetError, match="micro_world"):
        missing.load()


def test_the_oracle_survives_its_file(tmp_path: Path) -> None:
    from vr_pipeline.micro_world.clips import render_clips
    from vr_pipeline.micro_world.oracle import Oracle
    from vr_pipeline.micro_world.preferences import UTILITY

    clips = render_clips(96, seed=0, purpose="dataset")
    oracle = Oracle.fit(clips.frames, clips.scenes, seed=0, trees=2)
    dataset = OracleDataset(filepath=str(tmp_path / "deep" / "oracle.safetensors"))
    dataset.save(oracle)
    loaded = dataset.load()
    assert loaded is not None
    arguments = (clips.frames[:20], clips.judged_prompts[:20], list(UTILITY))
    assert np.array_equal(loaded.probabilities(*arguments), oracle.probabilities(*arguments))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["oracle.safetensors"]
    first = (tmp_path / "deep" / "oracle.safetensors").read_bytes()
    dataset.save(oracle)
    assert (tmp_path / "deep" / "oracle.safetensors").read_bytes() == first
