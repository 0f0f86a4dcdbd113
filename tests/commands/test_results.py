"""kedro results: which runs are shown, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from report_inputs import report_inputs
from vr_pipeline.commands import lineage
from vr_pipeline.commands.results import results
from vr_pipeline.evaluation.results import WIDTH, Result, table_lines
from vr_pipeline.lineage.runs import RunStore
from vr_pipeline.lineage.tracking import MlflowConfiguration, connect


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return report_inputs(prompts=6, samples=2)["evaluation_metrics"]


@pytest.fixture(scope="module")
def recorded(metrics: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, list[str]]:
    """A store with a run without an evaluation between two with one; their identifiers."""
    project = tmp_path_factory.mktemp("project")
    connection = connect(MlflowConfiguration(), project)
    names = []
    for number, evaluated in enumerate((True, False, True)):
        tags = {"kedro.pipelines": "mpo_dpo" if evaluated else "pair_selection", "kedro.env": ""}
        tags |= {"output.evaluation_metrics": str(number)} if evaluated else {}
        began = 1_000_000_000_000 + 100_000 * number
        run = connection.client.create_run(connection.experiment, start_time=began, tags=tags)
        if evaluated:
            of_run = metrics | {"clips": metrics["clips"] | {"prompts": number}}
            connection.client.log_dict(run.info.run_id, of_run, "evaluation_metrics.json")
        connection.client.set_terminated(run.info.run_id, end_time=began + 90_000)
        names.append(run.info.run_id)
    return RunStore(connection.client, connection.experiment, project), names


@pytest.fixture
def command(recorded: tuple[RunStore, list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lineage, "run_store", lambda env: recorded[0])
    return lambda *arguments: CliRunner().invoke(results, arguments)


def test_the_newest_runs_with_an_evaluation_are_shown(command, recorded) -> None:
    first, without, last = recorded[1]
    answer = command()
    assert answer.exit_code == 0, answer.output
    heads = [line.split()[0] for line in answer.output.splitlines() if line[:1].isalnum()]
    assert heads == [last[:8], first[:8]]
    assert "1 min 30 s" in answer.output
    assert [entry["run"] for entry in json.loads(command("--last", "1", "--json").output)] == [last]
    assert json.loads(command("latest", "--json").output)[0]["run"] == last
    failed = command(without[:8])
    assert failed.exit_code == 1
    assert "has no evaluation" in failed.output


def test_figures_are_those_of_the_metrics_file(command, recorded, metrics, tmp_path: Path) -> None:
    [of_run] = json.loads(command(recorded[1][0], "--json").output)
    for key in ("gain", "gain_by_dimension", "win_rate", "agreement", "pairs"):
        assert of_run[key] == metrics[key]
    assert of_run["seconds"] == 90
    path = tmp_path / "evaluation_metrics.json"
    path.write_text(json.dumps(metrics))
    [of_file] = json.loads(command(str(path), "--json").output)
    assert of_file["gain"] == metrics["gain"]
    path.write_text('{"gain": {}}')
    assert "no file of evaluation metrics" in command(str(path)).output


def test_gains_that_their_interval_separates_from_0_are_marked(metrics) -> None:
    records = metrics["gain_by_dimension"]["mpo"]["judge"]
    lines = table_lines([Result("run", metrics)])
    shown = " ".join(" ".join(lines).split())
    for name, record in records.items():
        assert f"{name} {record['mean']:+.2f}{'*' if record['ci_low'] > 0 else ''}" in shown
    assert lines[-1].startswith("* The 95 % interval")
    unmarked = {name: {"mean": 0.5, "ci_low": None, "ci_high": None} for name in records}
    lines = table_lines([Result("run", metrics | {"gain_by_dimension": {"mpo": {"judge": unmarked}}})])
    assert "*" not in "".join(lines)


@given(st.lists(st.text("abcdefghij_ ", min_size=1, max_size=40), min_size=1, max_size=24, unique=True))
def test_no_line_is_wider_than_the_table_may_be(metrics, names: list[str]) -> None:
    record = metrics["gain"]["mpo"]["judge"]
    gains = {"mpo": {"judge": dict.fromkeys(names, record)}}
    lines = table_lines([Result(" ".join(names), metrics | {"gain_by_dimension": gains})])
    assert max(map(len, lines)) <= WIDTH


def test_a_run_without_a_reward_says_so(metrics) -> None:
    empty = {key: {"mpo": {}} for key in ("gain", "gain_by_dimension", "win_rate")}
    lines = table_lines([Result("run", metrics | empty | {"agreement": None, "pairs": {}})])
    assert lines == ["run", "  No reward or oracle measured the clips of this run.", ""]
