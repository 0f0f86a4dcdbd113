"""Variables of the environment: configuration decides, what counts is recorded, and secrets are not."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from toy_project import kedro, make_project
from vr_pipeline.runtime import environment
from vr_pipeline.runtime.environment import honoured_environment, overrule, recorded_environment, restore_overruled

LEFT_OVER = {
    "conf/<env>/runner.yml": {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2", "MASTER_ADDR": "10.0.0.1"},
    "conf/<env>/mlflow.yml": {
        "MLFLOW_TRACKING_URI": "http://nowhere.invalid",
        "MLFLOW_REGISTRY_URI": "http://nowhere.invalid",
        "MLFLOW_EXPERIMENT_ID": "77",
        "MLFLOW_EXPERIMENT_NAME": "other",
        "MLFLOW_RUN_ID": "0" * 32,
    },
    "precision": {"NVIDIA_TF32_OVERRIDE": "1", "DIFFUSERS_ATTN_BACKEND": "flash"},
    "unpickled": {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
    "folder of the project": {"GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere/index"},
}
HONOURED = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LANG": "C"}
SECRETS = {"HF_TOKEN": "hf_abc", "RAY_AUTH_TOKEN": "abc", "HF_ENDPOINT": "https://me:word@mirror.example/"}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for group in environment._OVERRULED.values() for name in group] + [*HONOURED, *SECRETS]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "_overruled", {})
    return monkeypatch


@pytest.mark.parametrize("decides", list(LEFT_OVER))
def test_what_configuration_decides_is_taken_out_and_said(clean: pytest.MonkeyPatch, decides: str) -> None:
    assert overrule() == []
    for name, value in LEFT_OVER[decides].items():
        clean.setenv(name, value)
    [told] = overrule()
    assert decides in told
    for name in LEFT_OVER[decides]:
        assert name in told
        assert name not in os.environ
    restore_overruled()
    assert {name: os.environ[name] for name in LEFT_OVER[decides]} == LEFT_OVER[decides]


def test_values_of_what_was_overruled_are_not_told(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("MLFLOW_TRACKING_URI", "https://me:word@server.example")
    assert "word" not in "".join(overrule())


def test_no_secret_is_recorded(clean: pytest.MonkeyPatch) -> None:
    for name, value in {**HONOURED, **SECRETS}.items():
        clean.setenv(name, value)
    recorded = recorded_environment()
    assert {name: recorded[name] for name in HONOURED} == HONOURED
    assert not set(recorded) & {"HF_TOKEN", "RAY_AUTH_TOKEN"}
    assert recorded["HF_ENDPOINT"] == "https://***@mirror.example/"
    assert {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_ENDPOINT"} <= set(honoured_environment())
    assert not {"TZ", "LANG", "PYTHONHASHSEED"} & set(honoured_environment())


def test_every_rule_stands_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text()
    alike = ("ROLE_", "GROUP_", "LOCAL_WORLD_SIZE", "MLFLOW_TRACKING_D", "MLFLOW_REGISTRY_D", "MLFLOW_ARTIFACT")
    names = [name for group in environment._OVERRULED.values() for name in group] + list(environment.LOCAL_RAY)
    for name in names:
        if name.startswith((*alike, "MLFLOW_DEFAULT", "RAY_REDIS", "RAY_NAMESPACE")):
            continue
        assert f"`{name}`" in page, name


def test_a_run_heeds_its_configuration_and_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("plain", "disturbed")]
    for folder in folders:
        folder.mkdir()
        make_project(folder)
    assert kedro(folders[0], "run").returncode == 0
    for group in LEFT_OVER.values():
        for name, value in group.items():
            monkeypatch.setenv(name, value)
    for name, value in {**HONOURED, **SECRETS, "PYTHONHASHSEED": "123", "LC_ALL": "C"}.items():
        monkeypatch.setenv(name, value)
    run = kedro(folders[1], "run")
    assert run.returncode == 0, run.stderr
    for decides in LEFT_OVER:
        assert decides in run.stderr
    assert "OMP_NUM_THREADS=1" in run.stderr
    assert "hf_abc" not in run.stdout + run.stderr

    def results(folder: Path) -> dict[str, bytes]:
        files = (path for path in (folder / "data").rglob("*.*") if path.is_file() and path.suffix != ".lock")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert results(folders[0]) == results(folders[1])
    with sqlite3.connect(folders[1] / "mlflow.db") as connection:
        runs = connection.execute("select name like 'mpo%' from runs where status = 'FINISHED'").fetchall()
        assert sorted(runs) == [(0,), (1,)], "one run, and that of its recipe"
    [record] = (folders[1] / "mlartifacts").rglob("record.json")
    text = record.read_text()
    assert json.loads(text)["environment_variables"]["TZ"] == "Asia/Tokyo"
    assert "hf_abc" not in text
