"""Plots in the catalog."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib.image
import pytest
from kedro.io import DataCatalog, DatasetError
from matplotlib.figure import Figure


def drawn(dpi: float = 100) -> Figure:
    figure = Figure(figsize=(2.0, 1.0), dpi=dpi)
    figure.add_subplot().plot([0, 1], [1, 0])
    return figure


def test_a_plot_is_a_file_that_pages_and_previews_embed(tmp_path: Path) -> None:
    entry = {"type": "vr_pipeline.datasets.pictures.PlotDataset", "filepath": f"{tmp_path}/{{name}}.png"}
    catalog = DataCatalog.from_config({"{name}_plot": entry})
    catalog.save("first_plot", drawn())
    catalog.save("second_plot", drawn())
    content = (tmp_path / "first.png").read_bytes()
    assert content == (tmp_path / "second.png").read_bytes()
    loaded = catalog.load("first_plot")
    assert base64.b64decode(loaded) == content
    assert loaded == catalog["first_plot"].preview()
    assert matplotlib.image.imread(io.BytesIO(content)).shape[:2] == (110, 220)
    with pytest.raises(DatasetError):
        catalog.save("first_plot", "no figure")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.png", "second.png"]


def test_a_plot_may_have_its_own_resolution(tmp_path: Path) -> None:
    entry = {"type": "vr_pipeline.datasets.pictures.PlotDataset"}
    catalog = DataCatalog.from_config(
        {
            "given": {**entry, "filepath": f"{tmp_path}/given.png", "dpi": 50},
            "own": {**entry, "filepath": f"{tmp_path}/own.png", "dpi": "figure"},
        }
    )
    figure = drawn(dpi=70)
    for name, shape in {"given": (50, 100), "own": (70, 140)}.items():
        catalog.save(name, figure)
        assert matplotlib.image.imread(tmp_path / f"{name}.png").shape[:2] == shape
