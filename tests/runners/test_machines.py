"""Trainings over several machines: two command lines in one folder stand for two machines that share it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from toy_project import make_project, start_kedro
from vr_pipeline.errors import InputError
from vr_pipeline.runners import DeviceRunner, meeting
from vr_pipeline.runners.meeting import Launch, Meeting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_project(tmp_path)
    (tmp_path / "conf" / "local" / "mlflow.yml").write_text("enabled: false\n")
    return tmp_path


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def two_machines(folder: Path, trouble: str) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """The run, and the machine that joins it, which is there before the run begins."""
    address = f"localhost:{free_port()}"
    joined = start_kedro(folder, "join", address)
    route = f"routes.train.backend=torchrun,routes.train.machines=2,routes.train.rendezvous={address}"
    run = start_kedro(folder, "run", f"--params=toy.trouble={trouble}", f"--runner-params={route}")
    try:
        yield run, joined
    finally:
        for process in (run, joined):
            process.kill()
            process.communicate()


def processes_of(folder: Path) -> list[str]:
    """Commands of live processes that were started for a project, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get("PYTHONPATH", "").startswith(str(folder))
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_two_machines_train_together_and_the_one_of_the_run_saves(folder):
    with two_machines(folder, "group") as (run, joined):
        _, errors = run.communicate(timeout=120)
        said, _ = joined.communicate(timeout=30)
    assert run.returncode == 0, errors
    assert joined.returncode == 0
    assert "Training train_policy as machine 2 of 2" in said
    assert "has finished; this machine took part in 1 training(s)" in said
    # Each process saw the other, and the first is on the machine of the run.
    assert {path.name for path in folder.glob("rank*")} == {"rank0 on 0 saw [0, 1]", "rank1 on 1 saw [0, 1]"}
    assert (folder / "data" / "report.json").is_file()


def test_what_goes_wrong_on_another_machine_is_told_by_the_run_at_once(folder):
    with two_machines(folder, "elsewhere") as (run, joined):
        _, errors = run.communicate(timeout=100)
        _, said = joined.communicate(timeout=30)
    assert run.returncode == 1
    assert "the disk is not there. Mount it." in errors
    assert "--from-nodes=train_policy" in errors
    assert joined.returncode == 1
    assert re.search(r"The run at localhost:\d+ failed", said)


def test_ctrl_c_ends_all_processes_on_all_machines(folder):
    with two_machines(folder, "endless") as (run, joined):
        end = time.monotonic() + 100
        while not ((folder / "began0").exists() and (folder / "began1").exists()):
            assert time.monotonic() < end, "the training did not begin"
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=20)
        joined.communicate(timeout=20)
        assert run.returncode == 130, errors
        assert "The run was stopped." in errors
        assert "--from-nodes=train_policy" in errors
        assert "Traceback" not in errors
        assert joined.returncode == 1
        assert processes_of(folder) == []


def test_a_machine_that_does_not_come_is_not_waited_for_for_ever(caplog):
    opened = Meeting(meeting.HERE)
    launch = Launch(1, "run-1", "train", machines=3, processes=1, folder="/project", version="1")
    opened.store.add("arrived/1", 1)
    caplog.set_level("INFO")
    message = (
        rf"the training needs 3 machines, but 2 joined within 0\.001 minutes.* 'kedro join 127.0.0.1:{opened.port}'"
    )
    with pytest.raises(InputError, match=message), opened.training(launch, b"", wait_minutes=0.001):
        raise AssertionError("it began without the third")
    assert "Waiting for 1 more machine(s)" in caplog.text
    # Those that came continue to wait, for the next training or the end.
    assert opened.store.check(["over/1"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"machines": 2}, "need a 'rendezvous' with a fixed port"),
        ({"machines": 2, "rendezvous": "head"}, "'head' is not host:port"),
        ({"machines": 2, "rendezvous": "head:29400", "max_restarts": 1}, "'max_restarts' is for one machine"),
    ],
)
def test_machines_that_could_not_meet_are_rejected(settings, message):
    with pytest.raises(InputError, match=message):
        DeviceRunner().configure({"routes": {"train": {"backend": "torchrun", **settings}}})


def test_an_address_of_another_machine_is_rejected():
    with pytest.raises(InputError, match=r"cannot listen at 192\.0\.2\.1:0"):
        Meeting("192.0.2.1:0")


def test_processes_of_one_machine_meet_where_nobody_else_can_reach_them():
    opened = Meeting(meeting.HERE)
    listening = [place.laddr for place in psutil.Process().net_connections() if place.status == "LISTEN"]
    assert {place.ip for place in listening if place.port == opened.port} == {"127.0.0.1"}


def test_a_machine_that_falls_silent_is_noticed(monkeypatch):
    opened = Meeting(meeting.HERE)
    launch = Launch(1, "run-1", "train", machines=2, processes=1, folder=os.sep, version="1")
    ask = opened.trouble_of_others(launch)
    monkeypatch.setattr(meeting, "_SILENCE_SECONDS", 0.05)
    assert ask() is None
    opened.store.set("alive/1/1", "a")
    time.sleep(0.1)
    assert ask() is None
    time.sleep(0.1)
    assert ask() == "machine 2 of 2 no longer answers"


def test_a_machine_that_would_train_in_another_folder_is_rejected(tmp_path):
    from vr_pipeline import __version__
    from vr_pipeline.commands.join import _check

    launch = Launch(1, "run-1", "train", machines=2, processes=1, folder=str(tmp_path), version=__version__)
    with pytest.raises(InputError, match="Share the project's folder"):
        _check(launch)
