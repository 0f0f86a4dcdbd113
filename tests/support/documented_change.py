"""What docs/extending.md says is to be changed, done to a copy of the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("src", "conf", "pyproject.toml")
_DIFF = re.compile(r"^```diff[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def apply_documented(heading: str, folder: Path) -> Path:
    """Copy sources and configuration to a folder, if they are not there, and apply every diff below the heading.

    Raises:
        AssertionError: there is no such section, it has no diff, or a diff does not apply.
    """
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/extending.md has no section '{heading}'"
    diffs = _DIFF.findall(section[1])
    assert diffs, f"the section '{heading}' of docs/extending.md has no diff"
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (folder / name).exists():
            continue
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    for diff in diffs:
        done = subprocess.run(
            ["git", "apply", "--recount", "--whitespace=nowarn", "-"],
            cwd=folder,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
            input=diff,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{heading}: {done.stderr}\n{diff}"
    return folder


def run_python(folder: Path, code: str) -> str:
    """Run code with the changed sources in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
