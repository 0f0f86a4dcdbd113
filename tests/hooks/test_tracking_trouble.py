"""Runs whose tracking store fails in the middle: they end soon after their work, and say where the record is."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from toy_project import kedro, make_project

# Python imports this module by itself when it starts: it spoils the store when the first clips are there.
SPOILER = """
import os, pathlib, shutil, sqlite3, sys, threading, time

def spoil():
    while not pathlib.Path("data/clips").exists():
        time.sleep(0.01)
    {deed}

if "run" in sys.argv:
    threading.Thread(target=spoil, daemon=True).start()
"""
LOCK = """global held
    held = sqlite3.connect("mlflow.db", isolation_level=None, timeout=60)
    held.execute("BEGIN EXCLUSIVE")"""
FORGET = """with sqlite3.connect("mlflow.db", timeout=60) as store:
        store.execute("update runs set lifecycle_stage = 'deleted'")"""


def rows(folder: Path, file: str, query: str) -> list[tuple]:
    with sqlite3.connect(folder / file) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    ("deed", "trouble", "code"),
    [
        pytest.param(LOCK, "slow", 0, id="locked"),
        pytest.param(LOCK, "training", 1, id="locked and the work fails", marks=pytest.mark.slow),
        pytest.param(FORGET, "slow", 0, id="deleted", marks=pytest.mark.slow),
    ],
)
def test_a_store_that_fails_in_the_middle_costs_the_run_nothing(deed, trouble, code, tmp_path):
    folder = make_project(tmp_path)
    (folder / "conf" / "local" / "mlflow.yml").write_text("patience: 2\ntimeout: 2\n")
    (folder / "sitecustomize.py").write_text(SPOILER.format(deed=deed))
    start = time.monotonic()
    done = kedro(folder, "run", f"--params=toy.trouble={trouble}", wait=240)
    assert done.returncode == code, done.stderr
    assert time.monotonic() - start < 200
    assert "Traceback" not in done.stderr
    if code:
        assert "the training collapsed. Lower the learning rate." in done.stderr
        assert "--from-nodes=train_policy" in done.stderr
    else:
        assert (folder / "data" / "report.json").is_file()
        assert "'kedro lineage upload' sends it" in done.stdout.partition("The record of this run:")[2]
    assert "did not accept the record of this run" in done.stderr
    status = "FAILED" if code else "FINISHED"
    # A run has a nested one for each recipe.
    assert set(rows(folder, "mlflow-offline.db", "select status from runs")) == {(status,)}
    assert dict(rows(folder, "mlflow-offline.db", "select key, value from params"))["toy.rows"] == "4"
    assert not list((folder / "logs" / "tracking").glob("*")), "nothing is left to send"
