"""Rows of a training log reach MLflow while the training runs: each step once, whatever happens on the way."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import Metric

from vr_pipeline.hooks.live_curves import METRICS_A_CALL, CurveFollower, CurveHook, curve_metrics, curve_name
from vr_pipeline.runtime.live_curves import FOLDER, WrittenRows, checkpoint_row, send_to, write_row


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "live"
    place.mkdir()
    monkeypatch.setenv(FOLDER, str(place))
    yield place
    send_to(None)


class Store:
    """What MLflow would hold, and how it can fail."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    def send(self, metrics: list[Metric]) -> None:
        assert 0 < len(metrics) <= METRICS_A_CALL
        self.metrics += metrics

    def values(self) -> list[tuple[str, int, float]]:
        return [(metric.key, metric.step, metric.value) for metric in self.metrics]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def follow(folder: Path, store: Store) -> Iterator[Callable[..., CurveFollower]]:
    started: list[CurveFollower] = []

    def start(seconds: float = 600.0) -> CurveFollower:
        started.append(CurveFollower(folder, store.send, seconds=seconds))
        return started[-1]

    yield start
    for follower in started:
        follower._end.set()


def node(*outputs: str) -> Any:
    return SimpleNamespace(outputs=list(outputs))


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("training_log_mpo", "mpo"),
        ("training_log_my_own", "my_own"),
        ("judge_training_log", "judge"),
        ("training_log_", None),
        ("training_curves_mpo", None),
        ("validation_log_mpo", None),
    ],
)
def test_curves_are_named_after_their_logs(dataset: str, name: str | None) -> None:
    assert curve_name(dataset) == name


def test_rows_belong_to_the_log_of_the_node_that_runs(folder: Path) -> None:
    hook = CurveHook()
    write_row({"step": 0, "loss": 1.0})
    hook.before_node_run(node("policy_mpo", "training_log_mpo", "validation_log_mpo"))
    write_row({"step": 1, "loss": 0.5})
    hook.after_node_run()
    write_row({"step": 2, "loss": 0.4})
    hook.before_node_run(node("report"))
    write_row({"step": 3, "loss": 0.3})
    hook.before_node_run(node("policy_dpo", "training_log_dpo"))
    write_row({"step": 1, "loss": 0.6})
    hook.on_node_error()
    write_row({"step": 2, "loss": 0.4})
    told = [(log, row["step"], row["loss"]) for log, row in WrittenRows(folder).new()]
    assert told == [("training_log_dpo", 1, 0.6), ("training_log_mpo", 1, 0.5)]


def test_nothing_is_told_where_nobody_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)
    send_to("training_log_mpo")
    write_row({"step": 1, "loss": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_told_once_and_does_not_stop_the_training(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    send_to("training_log_mpo")
    folder.rmdir()
    with caplog.at_level(logging.WARNING):
        write_row({"step": 1, "loss": 0.5})
        write_row({"step": 2, "loss": 0.4})
    assert caplog.text.count("no longer updated") == 1


def test_every_row_is_read_once_when_its_line_is_whole(folder: Path) -> None:
    rows, file = WrittenRows(folder), folder / "training_log_mpo.jsonl"
    file.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert [row for _, row in rows.new()] == [{"step": 1, "loss": 0.5}]
    assert list(rows.new()) == []
    with file.open("a") as stream:
        stream.write('ss": 0.4}\n{"step": 3, "lo{"step": 3, "loss": 0.3}\n{"step": 4, "loss": NaN}\n')
    second, fourth = (row for _, row in rows.new())
    assert second == {"step": 2, "loss": 0.4}
    assert fourth["step"] == 4
    assert math.isnan(fourth["loss"])


def test_rows_arrive_while_the_training_goes_on(follow: Callable[..., CurveFollower], store: Store) -> None:
    follower = follow(seconds=0.01)
    send_to("training_log_mpo")
    for step in (1, 2):
        before = int(time.time() * 1000)
        write_row({"step": step, "loss": 1.0 / step})
        end = time.monotonic() + 30
        while len(store.metrics) < step:
            assert time.monotonic() < end, "the row did not arrive"
            time.sleep(0.005)
        assert store.values()[-1] == ("mpo/loss", step, 1.0 / step)
        # The time of the step, not of the sending.
        assert before <= store.metrics[-1].timestamp <= int(time.time() * 1000)
    follower.stop()
    assert len(store.metrics) == 2


def test_a_step_is_sent_once_and_gets_its_reward_later(
    follow: Callable[..., CurveFollower], store: Store, folder: Path
) -> None:
    follower = follow()
    send_to("training_log_mpo")
    write_row({"step": 1, "loss": 0.5, "margin": float("nan")})
    write_row({"step": 2, "loss": 0.4})
    write_row({"step": 2, "loss": 0.4, "validation_reward": 1.5})
    follower._look()
    # Taken up from a checkpoint after step 1: what was told before comes again, with the rounding of another GPU.
    for row in ({"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.41}, {"step": 3, "loss": 0.3}):
        write_row(row)
    follower.stop()
    assert store.values() == [
        ("mpo/loss", 1, 0.5),
        ("mpo/loss", 2, 0.4),
        ("mpo/validation_reward", 2, 1.5),
        ("mpo/loss", 3, 0.3),
    ]
    assert not folder.exists()
    table = [{"step": step, "loss": 0.0, "late": 7.0} for step in (1, 2, 3)]
    metrics = [metric for row in table for metric in curve_metrics("mpo", row, 0)]
    assert [(metric.key, metric.step) for metric in follower.missing(metrics)] == [("mpo/late", s) for s in (1, 2, 3)]


def test_judged_checkpoints_have_curves_of_their_own() -> None:
    row = {"step": 0, "policy": "original", "reward": 2.0, "se": 0.5, "clips": 4, "chosen": False, "dim_quality": 1.5}
    metrics = curve_metrics("mpo", checkpoint_row(row), 0)
    assert [(metric.key, metric.step, metric.value) for metric in metrics] == [
        ("mpo/validation_reward", 0, 2.0),
        ("mpo/validation_se", 0, 0.5),
        ("mpo/validation_dim_quality", 0, 1.5),
    ]
