"""What a command prints on a terminal, with and without NO_COLOR."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toy_project import ROOT, make_project

pty = pytest.importorskip("pty", reason="pseudo-terminals are not known to this system")

ESCAPE = b"\x1b"
ARGUMENTS = ("run", "--pipeline=toi")


def start_on_terminal(folder: Path, **environment: str) -> tuple[subprocess.Popen[bytes], int]:
    """A command whose output goes to a new terminal, and the end to read it from."""
    screen, its_side = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TQDM_DISABLE"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "kedro", *ARGUMENTS],
        cwd=folder,
        env={**clean, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}", "TERM": "xterm-256color", **environment},
        stdin=subprocess.DEVNULL,
        stdout=its_side,
        stderr=its_side,
    )
    os.close(its_side)
    return process, screen


def read_to_the_end(process: subprocess.Popen[bytes], screen: int) -> bytes:
    parts = []
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(screen)
    assert process.wait(timeout=60) == 1
    return b"".join(parts)


def test_errors_are_red_on_a_terminal_and_plain_with_no_color(tmp_path):
    folder = make_project(tmp_path)
    shutil.copy(ROOT / "conf" / "logging.yml", folder / "conf")
    started = [start_on_terminal(folder), start_on_terminal(folder, NO_COLOR="1")]
    coloured, plain = (read_to_the_end(*each) for each in started)
    assert b"\x1b[31m" in coloured
    assert ESCAPE not in plain
    for output in (coloured, plain):
        assert b"There is no pipeline 'toi'" in output
        assert b"Traceback" not in output
