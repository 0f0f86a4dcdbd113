"""A small Kedro project on disk: this project's settings, session, hooks and runner, and pipelines of a few lines."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PYPROJECT = """
[tool.kedro]
package_name = "toy"
project_name = "toy"
kedro_init_version = "1.7.0"
source_dir = "."
"""

_PIPELINES = """
import os
import signal
import time

import pandas as pd
from kedro.pipeline import Node, Pipeline
from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.runtime.live_curves import write_row
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan


class ToyParameters(Parameters):
    rows: int = Field(ge=1)
    trouble: str = ""
    nested: dict[str, float] = {}


def read_prompts(parameters: ToyParameters) -> pd.DataFrame:
    from tqdm import tqdm

    list(tqdm(range(3), desc="bar of a library"))
    return pd.DataFrame({"prompt_id": [f"p{n}" for n in range(parameters.rows)]})


def make_clips(prompts: pd.DataFrame, parameters: ToyParameters) -> WorkPlan:
    def make(context, batch):
        if parameters.trouble == "kill" and batch[0].key == "p2":
            os.kill(os.getpid(), signal.SIGKILL)
        if parameters.trouble == "kill once" and batch[0].key == "p2" and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if parameters.trouble in ("slow", "very slow"):
            time.sleep(1 if parameters.trouble == "slow" else 6)
        return [ItemFailure("unlucky") if item.key == "p1" else {"key": item.key} for item in batch]

    items = [WorkItem(key, "1") for key in prompts["prompt_id"]]
    return WorkPlan(items, make, description="clips")


def index_clips(clips, parameters: ToyParameters) -> pd.DataFrame:
    if parameters.trouble == "input":
        raise InputError("the column is missing", remedy="add it", file="a.csv", row=3, field="prompt")
    if parameters.trouble == "bug":
        raise ZeroDivisionError("a bug")
    return clips.records[["key", "status"]]


def train(index: pd.DataFrame, parameters: ToyParameters):
    if parameters.trouble in ("group", "elsewhere", "endless"):
        train_together(parameters.trouble)
    if parameters.trouble == "table":
        return pd.DataFrame({"step": [1, 1], "loss": [0.5, 0.4]}), {}
    write_row({"step": 1, "loss": 0.5})
    if parameters.trouble == "training":
        raise InputError("the training collapsed", remedy="lower the learning rate")
    metrics = {
        "gain": {"mpo": {"judge": {"mean": 0.5, "ci_low": 0.25, "ci_high": 0.75}}},
        "agreement": {"tau": 0.8, "diff": 0.9, "epsilon": 0.1, "n": 10, "n_ties": 2},
        "pairs": {"mpo": {"n": 7, "dominating": 7, "not_dominating": 0}},
    }
    return pd.DataFrame({"step": [1, 2], "loss": [0.5, 0.4], "accuracy": [0.5, None]}), metrics


def train_together(trouble: str) -> None:
    import torch

    from vr_pipeline.engine.groups import training_group

    machine = int(os.environ["GROUP_RANK"])
    open(f"began{machine}", "w").close()
    if trouble == "elsewhere" and machine == 1:
        raise InputError("the disk is not there", remedy="mount it")
    if trouble != "group":
        time.sleep(120)
    with training_group(torch.device("cpu")) as group:
        machines = group.gather({"machine": torch.tensor([machine])})["machine"].tolist()
    open(f"rank{group.rank} on {machine} saw {machines}", "w").close()


def write_report(metrics: dict) -> dict:
    return {"report": "page"}


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(read_prompts, "params:toy", "prompts", name="read_prompts"),
            Node(make_clips, ["prompts", "params:toy"], "clips", name="make_clips", tags="gpu"),
            Node(index_clips, ["clips", "params:toy"], "clip_index", name="index_clips"),
            Node(train, ["clip_index", "params:toy"], ["training_log_mpo", "evaluation_metrics"], name="train_policy",
                 tags="train"),
            Node(write_report, "evaluation_metrics", "evaluation_report", name="write_report"),
        ]
    )


def register_pipelines() -> dict[str, Pipeline]:
    return {"toy": create_pipeline(), "__default__": create_pipeline()}
"""

_CATALOG = """
prompts: {type: pandas.ParquetDataset, filepath: data/prompts.parquet}
clips:
  type: vr_pipeline.datasets.manifest.ManifestFolderDataset
  path: data/clips
  format: {type: json}
clip_index: {type: pandas.ParquetDataset, filepath: data/clip_index.parquet, metadata: {mlflow: true}}
training_log_mpo:
  type: pandas.ParquetDataset
  filepath: data/training_log_mpo.parquet
  validator: vr_pipeline.schemas.TrainingLog
evaluation_metrics: {type: json.JSONDataset, filepath: data/metrics.json, metadata: {mlflow: {metrics: true}}}
evaluation_report: {type: json.JSONDataset, filepath: data/report.json, metadata: {mlflow: true}}
"""

_PARAMETERS = "toy: {rows: 4, nested: {a: 1.5}}\n"


def make_project(folder: Path) -> Path:
    """Write the project into ``folder``, with this project's runner, MLflow and logging configuration."""
    package = folder / "toy"
    base = folder / "conf" / "base"
    (folder / "conf" / "local").mkdir(parents=True)
    base.mkdir()
    package.mkdir()
    (folder / "pyproject.toml").write_text(_PYPROJECT)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text("from vr_pipeline.settings import *\n")
    (package / "cli.py").write_text("from vr_pipeline.cli import cli\n")
    (package / "pipeline_registry.py").write_text(textwrap.dedent(_PIPELINES))
    (base / "catalog.yml").write_text(_CATALOG)
    (base / "parameters.yml").write_text(_PARAMETERS)
    for name in ("runner.yml", "mlflow.yml", "logging.yml"):
        (base / name).write_text((ROOT / "conf" / "base" / name).read_text())
    return folder


def kedro(folder: Path, *arguments: str, wait: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line in a project."""
    command = [sys.executable, "-m", "kedro", *arguments]
    return subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True, timeout=wait)


def start_kedro(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line in a project."""
    command = [sys.executable, "-m", "kedro", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=_environment(folder), stdout=pipe, stderr=pipe, text=True)


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}", "COLUMNS": "200"}
