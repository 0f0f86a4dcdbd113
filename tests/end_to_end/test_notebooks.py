"""The notebooks on a finished run: they execute and show something, and what is stored of them is of that form."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def run_notebooks() -> types.ModuleType:
    specification = importlib.util.spec_from_file_location("run_notebooks", ROOT / "docs" / "run_notebooks.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_there_are_three_and_the_documentation_names_them():
    assert len(NOTEBOOKS) == 3
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"`{path.name}`" in tour


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stored_without_what_differs_between_runs_and_machines(path):
    assert path.stat().st_size < 300_000
    text = path.read_text(encoding="utf-8")
    for mark in (str(ROOT), "/home/", "/root/", "/tmp/", " at 0x"):
        assert mark not in text
    for cell in code_cells(path):
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}
        assert all(output["output_type"] in ("execute_result", "display_data") for output in cell["outputs"])
        source = "".join(line for line in cell["source"] if not line.startswith("%"))
        kinds = {type(node) for node in ast.walk(ast.parse(source))}
        assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try}, source


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_what_is_stored(path, demo_run, run_notebooks):
    pytest.importorskip("nbclient")
    cells = [cell for cell in run_notebooks.run(path, demo_run[0]).cells if cell.cell_type == "code"]
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in cells]
    assert sum("image/png" in kind for kind in kinds) >= 1
    assert sum("text/html" in kind for kind in kinds) >= 2
    # Every cell but the first shows what it is about.
    assert all(kind for kind in kinds[1:])
    # Numbers differ by rounding between machines; what is shown, and the columns of tables, do not.
    stored = code_cells(path)
    assert kinds == [{kind for output in cell["outputs"] for kind in output.get("data", {})} for cell in stored]
    assert [columns(cell.outputs) for cell in cells] == [columns(cell["outputs"]) for cell in stored], (
        "run python docs/run_notebooks.py on the results of a demo"
    )


def columns(outputs: list[Any]) -> list[str]:
    """Names of the columns of the tables that are shown."""
    shown = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    heads = [head for text in shown for head in re.findall(r"<thead>.*?</thead>", text, re.DOTALL)]
    return [name for head in heads for name in re.findall(r"<th[^>]*>\s*([^<]*?)\s*</th>", head)]
