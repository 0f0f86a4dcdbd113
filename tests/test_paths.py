"""Paths are paths: no character of a folder's or a file's name is an address, a pattern or a reference."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from kedro.io import DataCatalog

from toy_project import kedro, make_project
from vr_pipeline.work import WorkItem, WorkPlan

NAMES = (
    *(
        "a b",
        "a%20b",
        "100%",
        "%(x)s",
        "[x]",
        "a*b?",
        "a#b;c",
        "q'q",
        'd"d',
        "ü漢",
        "-dash",
        "${x}",
        "{a}",
        "new\nline",
    ),
    *("back\\slash", "~a", "a:b", "a&b|c", "$HOME", "a=b,c", ".hidden", "l" * 200),
)


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_takes_every_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()  # what a pattern could take for the folder
    folder = tmp_path / name
    catalog = DataCatalog.from_config(
        {
            "table": {"type": "pandas.ParquetDataset", "filepath": str(folder / "t.parquet")},
            "rows": {"type": "pandas.CSVDataset", "filepath": str(folder / "r.csv"), "save_args": {"index": False}},
            "figures": {"type": "json.JSONDataset", "filepath": str(folder / "f.json")},
            "page": {"type": "text.TextDataset", "filepath": str(folder / "p.html")},
            "plot": {"type": "matplotlib.MatplotlibDataset", "filepath": str(folder / "p.png")},
            "items": {
                "type": "vr_pipeline.datasets.manifest.ManifestFolderDataset",
                "path": str(folder / "items"),
                "format": {"type": "json"},
            },
            "prompts": {
                "type": "vr_pipeline.datasets.prompts.PromptFileDataset",
                "filepath": str(folder / "prompts" / f"{name[:100]}.csv"),
            },
        }
    )
    table = pd.DataFrame({"prompt": ["a red ball", "a blue ring"]})
    for dataset, content in (("table", table), ("rows", table), ("figures", {"a": 1}), ("page", "text")):
        catalog.save(dataset, content)
        loaded = catalog.load(dataset)
        assert loaded.equals(table) if isinstance(loaded, pd.DataFrame) else loaded == content
    figure = plt.figure()
    catalog.save("plot", figure)
    plt.close(figure)
    catalog.save("items", WorkPlan([WorkItem(name, "1")], lambda _, batch: [{"of": item.key} for item in batch]))
    assert catalog.load("items").load(name) == {"of": name}
    (folder / "prompts").mkdir()
    (folder / "prompts" / f"{name[:100]}.csv").write_text("prompt\na red ball\n")
    assert len(catalog.load("prompts")) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["x", name])
    assert not any((tmp_path / "x").iterdir())


@pytest.mark.parametrize("name", ["[x] a*b? ü漢", "a%20b #; 'q' $HOME ${x}", "-dash\nnew {a}"])
def test_a_project_may_lie_below_any_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    folder = make_project(tmp_path / name)
    run = kedro(folder, "run")
    assert run.returncode == 0, run.stderr
    made = ("data/report.json", "mlflow.db", "logs/vr_pipeline.log", "logs/origins.json", "data/clips/manifest.json")
    assert [file for file in made if not (folder / file).is_file()] == []
    assert [path.name for path in tmp_path.iterdir()] == [name]
