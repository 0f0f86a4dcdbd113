"""Catalog entries of any kind replace their files: nothing is half written, and links of DVC are left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from kedro.framework.project import settings
from kedro.io import DatasetError

from vr_pipeline.datasets.catalog import ReplacingCatalog
from vr_pipeline.project.folder import project_folder
from vr_pipeline.storage.atomic import TEMPORARY_PREFIX


def table(number: int) -> pd.DataFrame:
    return pd.DataFrame({"number": [number]})


def figure(number: int) -> plt.Figure:
    made, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, number])
    return made


def plotly_figure(number: int) -> Any:
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(x=[0], y=[number]))


KINDS: dict[str, tuple[str, str, Callable[[int], Any], dict[str, Any]]] = {
    "parquet": ("pandas.ParquetDataset", "a.parquet", table, {}),
    "csv": ("pandas.CSVDataset", "a.csv", table, {"save_args": {"index": False}}),
    "json": ("json.JSONDataset", "a.json", lambda number: {"number": number}, {}),
    "text": ("text.TextDataset", "a.html", str, {}),
    "picture": ("matplotlib.MatplotlibDataset", "a.png", figure, {"save_args": {"format": "png"}}),
    "plotly": ("plotly.JSONDataset", "a.json", plotly_figure, {}),
    "cached": ("kedro.io.CachedDataset", "", table, {}),
    "preferences": (
        "vr_pipeline.datasets.preferences.PreferenceDataset",
        "a.csv",
        lambda number: pd.DataFrame({"prompt": [f"prompt {number}"]}),
        {},
    ),
}


def catalog_of(kind: str, folder: Path) -> tuple[ReplacingCatalog, Path, Callable[[int], Any]]:
    name, file, make, options = KINDS[kind]
    place = folder / (file or "a.parquet")
    entry: dict[str, Any] = {"type": name, "filepath": str(place), **options}
    if not file:
        entry = {"type": name, "dataset": {"type": "pandas.ParquetDataset", "filepath": str(place)}}
    return ReplacingCatalog.from_config({"a": entry}), place, make


def test_the_project_uses_this_catalog() -> None:
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(project_folder())
    assert settings.DATA_CATALOG_CLASS is ReplacingCatalog


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_what_a_link_leads_to_stays_as_it_was(kind: str, link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    catalog, place, make = catalog_of(kind, tmp_path / "data")
    catalog.save("a", make(1))
    cached = tmp_path / "cached"
    place.rename(cached)
    before = cached.read_bytes()
    cached.chmod(0o444)
    link(cached, place)
    catalog.save("a", make(2))
    assert cached.read_bytes() == before
    assert not place.is_symlink()
    fresh, other, _ = catalog_of(kind, tmp_path / "other")
    fresh.save("a", make(2))
    assert place.read_bytes() == other.read_bytes() != before
    assert [path.name for path in place.parent.iterdir()] == [place.name]


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "text"])
def test_a_save_that_fails_leaves_the_file_before(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, place, make = catalog_of(kind, tmp_path / "data")
    catalog.save("a", make(1))
    before = place.read_bytes()
    with pytest.raises(DatasetError):
        catalog.save("a", object())
    assert place.read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_folder_of_pictures_is_replaced(tmp_path: Path) -> None:
    place, cached = tmp_path / "pictures", tmp_path / "cached.png"
    entry = {"type": "matplotlib.MatplotlibDataset", "filepath": str(place)}
    catalog = ReplacingCatalog.from_config({"a": entry})
    catalog.save("a", {"one.png": figure(1), "two.png": figure(2)})
    (place / "one.png").rename(cached)
    before = cached.read_bytes()
    (place / "one.png").symlink_to(cached)
    catalog.save("a", {"one.png": figure(3)})
    assert cached.read_bytes() == before
    assert sorted(path.name for path in place.iterdir()) == ["one.png", "two.png"], "it adds to what is there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cached.png", "pictures"]


def test_a_folder_with_read_only_files_is_added_to_as_any_other(tmp_path: Path) -> None:
    place = tmp_path / "pictures"
    catalog = ReplacingCatalog.from_config({"a": {"type": "matplotlib.MatplotlibDataset", "filepath": str(place)}})
    catalog.save("a", {"one.png": figure(1)})
    (place / "one.png").chmod(0o444)  # As DVC does when it links files to its cache.
    catalog.save("a", {"two.png": figure(2)})
    assert all(os.stat(file).st_mode & 0o200 for file in place.iterdir())


def test_a_file_that_is_appended_to_keeps_what_it_has(tmp_path: Path) -> None:
    place = tmp_path / "log.txt"
    entry = {"type": "text.TextDataset", "filepath": str(place), "fs_args": {"open_args_save": {"mode": "a"}}}
    catalog = ReplacingCatalog.from_config({"a": entry})
    catalog.save("a", "one\n")
    catalog.save("a", "two\n")
    assert place.read_text() == "one\ntwo\n"


def test_versions_are_kept_apart_as_kedro_does(tmp_path: Path) -> None:
    entry = {"type": "text.TextDataset", "filepath": str(tmp_path / "a.txt"), "versioned": True}
    catalog = ReplacingCatalog.from_config({"a": entry}, save_version="2026-01-01T00.00.00.000Z")
    catalog.save("a", "one")
    assert catalog.load("a") == "one"
    assert [path.name for path in (tmp_path / "a.txt").iterdir()] == ["2026-01-01T00.00.00.000Z"]


def test_what_a_kill_left_is_replaced(tmp_path: Path) -> None:
    catalog, _, make = catalog_of("json", tmp_path)
    (tmp_path / f"{TEMPORARY_PREFIX}a.json").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("precious")
    catalog.save("a", make(1))
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "elsewhere"]
