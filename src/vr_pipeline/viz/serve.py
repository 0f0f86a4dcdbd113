"""The graph of the pipelines by Kedro-Viz, served or as a static page.

What is drawn comes from :mod:`vr_pipeline.viz.pipelines`, for ``kedro viz`` too. Added here: fewer messages, and a
static page that has no paths of the machine that built it and asks nothing of the network.
"""

import json
import logging
import re
import shutil
import threading
import warnings
import webbrowser
from pathlib import Path

from vr_pipeline.storage.atomic import write_text
from vr_pipeline.terminal import echo


def _quieten() -> None:
    """Silence warnings of Kedro and Kedro-Viz at import that users cannot fix."""
    # Data that no run has made yet have no preview, which is no reason for a page of warnings.
    for name in ("kedro_viz", "kedro.validation"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")


def load(project: Path, environment: str | None = None) -> None:
    """Read the project into Kedro-Viz's repositories."""
    from kedro_viz.data_access import data_access_manager
    from kedro_viz.integrations.kedro.data_loader import load_data
    from kedro_viz.server import populate_data

    catalog, pipelines, extras = load_data(project, environment)
    populate_data(data_access_manager, catalog, pipelines, extras)


def serve(project: Path, *, environment: str | None, host: str, port: int, open_browser: bool) -> None:
    """Serve the graph until interrupted."""
    _quieten()
    import uvicorn
    from kedro_viz.api import apps

    load(project, environment)
    address = f"http://{host}:{port}"
    if open_browser:
        opener = threading.Timer(1.0, webbrowser.open, args=(address,))
        opener.daemon = True
        opener.start()
    echo(f"The pipelines are shown at {address}; Ctrl-C ends.")
    uvicorn.run(apps.create_api_app_from_project(project), host=host, port=port, log_config=None)


def build(project: Path, folder: Path, *, environment: str | None = None) -> None:
    """Write the static page with previews of the data.

    Args:
        folder: where the page goes; it may exist, what is in it from an earlier build is replaced.
    """
    _quieten()
    import fsspec  # type: ignore[import-untyped]
    from kedro_viz.api.rest.responses.save_responses import save_api_responses_to_fs
    from kedro_viz.integrations.deployment.base_deployer import _HTML_DIR

    load(project, environment)
    shutil.rmtree(folder / "api", ignore_errors=True)
    shutil.copytree(_HTML_DIR, folder, dirs_exist_ok=True)
    save_api_responses_to_fs(str(folder), fsspec.filesystem("file"), True)
    # What a server would answer beside the graph itself.
    (folder / "api" / "deploy-viz-metadata").write_text("{}", encoding="utf-8")
    # Without an entry for this package the page reports an error to the console.
    package = {"package_name": "fsspec", "package_version": fsspec.__version__, "is_compatible": True}
    complete = {"has_missing_dependencies": False, "package_compatibilities": [package]}
    (folder / "api" / "metadata").write_text(json.dumps(complete), encoding="utf-8")
    _forget_places(folder / "api", project)
    _stay_here(folder)


def _forget_places(answers: Path, project: Path) -> None:
    """Make paths relative to the project, and those of the code to its source folder."""
    source = Path(__file__).resolve().parents[2]
    places = sorted({project, project.resolve(), source}, key=lambda place: -len(str(place)))
    for path in answers.rglob("*"):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        for place in places:
            text = text.replace(f"{place.as_posix()}/", "src/" if place == source else "")
        write_text(path, text)


_SETTINGS = """<script>
if (!localStorage.getItem("KedroViz")) {
  const visible = {sidebar: false, miniMap: false};
  const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  localStorage.setItem("KedroViz", JSON.stringify({theme, showFeatureHints: false, visible}));
}
</script><style>
.pipeline-icon--container:has(.pipeline-menu-button--deploy) { display: none; }
@media (max-width: 600px) { html .pipeline-layer-name { display: none; } }
</style>"""
"""Settings of the first visit. Publishing needs a server, and names of layers would cover the graph on a phone."""


def _stay_here(folder: Path) -> None:
    """Remove fonts from other hosts, and Kedro-Viz's feature tour at the first visit."""
    for path in (*folder.glob("*.html"), *folder.glob("assets/*.js")):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"<link[^>]+fonts\.(googleapis|gstatic)\.com[^>]*>", "", text)
        text = re.sub(r"https://fonts\.googleapis\.com/[^\"'`]*", "data:text/css,", text)
        write_text(path, text)
    page = folder / "index.html"
    write_text(page, page.read_text(encoding="utf-8").replace("<head>", f"<head>{_SETTINGS}", 1))
