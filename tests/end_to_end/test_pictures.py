"""What is shown of a finished run: the graph with previews, what the run did, and where its report came from."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import kedro

from vr_pipeline.evaluation.report.run_lines import RUN_FILE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def answers(demo_run: tuple[Path, str]) -> Path:
    folder = demo_run[0]
    result = kedro(folder, "graph", "--build", "graph")
    assert result.returncode == 0, result.stderr
    return folder / "graph" / "api"


@pytest.fixture(scope="module")
def nodes(answers: Path) -> dict[str, dict[str, Any]]:
    """What is shown of each node and dataset, by name."""
    page = json.loads((answers / "pipelines" / "mpo_dpo").read_text())
    return {
        node["name"]: json.loads((answers / "nodes" / node["id"]).read_text())
        for node in page["nodes"]
        if node["type"] in {"task", "data"}
    }


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "ImagePreview",
            ["videos", "evaluation_videos", "video_contact_sheet", "reward_weights_plot", "pair_fates_plot"],
        ),
        ("TablePreview", ["filtered_prompts", "rewards", "preference_pairs_mpo", "answer_shards", "training_log_mpo"]),
        ("JSONPreview", ["evaluation_metrics", "reward_weights", "pair_selection_report"]),
    ],
)
def test_results_have_previews(nodes: dict[str, dict[str, Any]], kind: str, names: list[str]) -> None:
    for name in names:
        assert nodes[name]["preview_type"] == kind, name
        assert nodes[name]["preview"], name


def test_no_path_of_the_machine(answers: Path, demo_run: tuple[Path, str]) -> None:
    for path in answers.rglob("*"):
        if path.is_file():
            assert str(demo_run[0]) not in path.read_text(encoding="utf-8"), path


def test_the_last_run_is_shown(answers: Path) -> None:
    status = json.loads((answers / "run-status").read_text())
    page = json.loads((answers / "pipelines" / "mpo_dpo").read_text())
    names = {node["id"]: node["name"] for node in page["nodes"]}
    tasks = {node["id"] for node in page["nodes"] if node["type"] == "task"}
    assert status["pipeline"]["status"] == "success"
    assert status["pipeline"]["duration"] > 10
    # Every node of the graph is found among the records, under the identifier that the graph has.
    assert set(status["nodes"]) == tasks
    assert all(node["status"] == "success" for node in status["nodes"].values())
    sizes = {names[key]: dataset["size"] for key, dataset in status["datasets"].items() if key in names}
    assert sizes["videos"] > 100_000
    assert sizes["evaluation_report"] > 100_000


def test_commit_and_run_lie_beside_the_report_and_in_mlflows_copy(demo_run: tuple[Path, str]) -> None:
    folder = demo_run[0]
    with sqlite3.connect(folder / "mlflow.db") as database:
        [(run,)] = database.execute("select run_uuid from runs where name like 'mpo_dpo %'").fetchall()
    page = folder / "data" / "08_reporting" / "evaluation_report.html"
    assert run not in page.read_text()
    assert run in (page.parent / RUN_FILE).read_text()
    [copy] = (folder / "mlartifacts").rglob("evaluation_report.html")
    assert f"<dt>MLflow run</dt><dd>{run}</dd>" in copy.read_text()
    assert copy.stat().st_size < 10_000_000
