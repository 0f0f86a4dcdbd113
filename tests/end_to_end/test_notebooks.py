"""The notebooks on a finished run: they execute, they show something, and they have no results in git."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_there_are_three_and_the_documentation_names_them():
    assert len(NOTEBOOKS) == 3
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"`{path.name}`" in tour


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_results_in_git_and_no_logic(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        source = "".join(line for line in cell["source"] if not line.startswith("%"))
        kinds = {type(node) for node in ast.walk(ast.parse(source))}
        assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try}, source


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, demo_run):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    folder = demo_run[0] / "notebooks"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder)
    notebook = nbformat.read(folder / path.name, as_version=4)
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in cells]
    assert sum("image/png" in kind for kind in kinds) >= 1
    assert sum("text/html" in kind for kind in kinds) >= 2
    # Every cell but the first shows what it is about.
    assert all(kind for kind in kinds[1:])
