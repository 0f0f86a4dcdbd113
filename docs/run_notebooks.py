"""Run the notebooks on a finished demo, and store what they show in a form that does not differ between runs.

    python docs/run_notebooks.py FOLDER     # a project with the results of kedro run --pipeline=mpo_dpo

Counts of cells, times, addresses of objects and random identifiers are left out, and so is what goes to the terminal.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def run(path: Path, project: Path) -> Any:
    """Execute a copy of a notebook in a project; return it as it is stored.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbclient
    import nbformat

    folder = project / "notebooks"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder)
    notebook = nbformat.read(folder / path.name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    notebook.metadata = nbformat.read(path, as_version=4).metadata
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [_stored(output) for output in cell.outputs if output.output_type != "stream"]
    return notebook


def _stored(output: Any) -> Any:
    """Return an output without what differs between runs."""
    if "execution_count" in output:
        output["execution_count"] = None
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/"):
            content = re.sub(r" at 0x[0-9a-f]+", "", content)
            # pandas names styled tables at random.
            output["data"][kind] = re.sub(r"\bT_[0-9a-f]{5}", "T", content)
        elif kind == "image/png":
            output["data"][kind] = _smaller(content)
    return output


def _smaller(content: str) -> str:
    """Return a picture in 64 colours, a third of its size, where that looks alike: charts, not clips."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        picture = opened.convert("RGB")
    few = picture.quantize(64, dither=Image.Dither.NONE)
    change = np.abs(np.asarray(few.convert("RGB"), dtype=float) - np.asarray(picture, dtype=float))
    small = io.BytesIO()
    (few if change.mean() < 0.5 else picture).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


def main() -> None:
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    project = parser.parse_args().folder
    for path in NOTEBOOKS:
        nbformat.write(run(path, project), path)


if __name__ == "__main__":
    main()
