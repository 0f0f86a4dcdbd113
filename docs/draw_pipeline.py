"""Draws docs/images/pipeline.png: the pipeline mpo_dpo as `kedro graph` shows it. Needs a system Chromium.

Run from anywhere: ``python docs/draw_pipeline.py``.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "images" / "pipeline.png"
SIZE = {"width": 1100, "height": 1400}
MARGIN = 30
# Side bars, hints and buttons would only cover the graph.
SETTINGS = {
    "KedroViz": {
        "theme": "light",
        "showFeatureHints": False,
        "visible": {"sidebar": False, "miniMap": False, "layerBtn": True},
    },
    "KedroViz-feedback-seen": {"flowchart": True},
}


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line on the screen for each."""

    def log_message(self, format: str, *args: object) -> None:
        return


def build(folder: Path) -> Path:
    """Build the page below ``folder`` from a copy of the configuration."""
    (folder / "src").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "conf", folder / "conf")
    command = [sys.executable, "-m", "kedro", "graph", "--build", "build"]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return folder / "build"


def photograph(page_folder: Path, target: Path) -> None:
    """Open the page in a headless browser and save what it shows."""
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        raise SystemExit("no Chromium is installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(page_folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE, device_scale_factor=1.25)
            for key, value in SETTINGS.items():
                page.add_init_script(f"localStorage.setItem({json.dumps(key)}, {json.dumps(json.dumps(value))})")
            page.goto(f"http://127.0.0.1:{server.server_port}/?pid=mpo_dpo")
            page.wait_for_selector(".pipeline-node")
            # The layout is computed by a worker and then moves into place.
            page.wait_for_timeout(4000)
            page.add_style_tag(content='[class*="toolbar"], [class*="sidebar"] { visibility: hidden !important }')
            boxes = [
                box
                for element in page.query_selector_all(".pipeline-node, .pipeline-layer-name")
                if (box := element.bounding_box()) is not None
            ]
            left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
            right = max(box["x"] + box["width"] for box in boxes)
            bottom = max(box["y"] + box["height"] for box in boxes)
            target.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(
                path=str(target),
                clip={
                    "x": max(left - MARGIN, 0),
                    "y": max(top - MARGIN, 0),
                    "width": right - left + 2 * MARGIN,
                    "height": bottom - top + 2 * MARGIN,
                },
            )
            browser.close()
    finally:
        server.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        photograph(build(Path(temporary)), TARGET)
    print(TARGET.relative_to(ROOT))
