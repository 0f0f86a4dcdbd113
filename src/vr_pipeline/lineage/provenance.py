"""The state of code, data and machine at the start of a run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PACKAGES = (
    "vr_pipeline",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "kedro",
    "mlflow",
    "dvc",
    "numpy",
    "pandas",
    "pyarrow",
)
_DATA = "data/"
_LONG_AGO = 1
_LARGEST_NEW_FILE = 1 << 20
"""Untracked files above this many bytes are named, not recorded."""


def git(project: Path, *arguments: str, **environment: str) -> str | None:
    """Output of a git command in the project; None without git, outside a repository, or where it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=project,
            capture_output=True,
            check=True,
            timeout=120,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="surrogateescape")


@dataclass(frozen=True)
class Code:
    """The project's files against git.

    Args:
        commit: the commit that is checked out; empty outside a repository.
        changes: a patch from the commit to the files as they are, which ``git apply`` takes; empty if there are none.
        changed: paths that the patch is about.
        left_out: new files too large for the patch.
    """

    commit: str = ""
    changes: str = ""
    changed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        return bool(self.changed or self.left_out)

    @property
    def tags(self) -> dict[str, str]:
        """As tags of a run; empty outside a repository."""
        return {"git.commit": self.commit, "git.dirty": str(self.dirty).lower()} if self.commit else {}


def code_state(project: Path, results: Iterable[str] = ()) -> Code:
    """Commit, and what differs from it, with new files that git does not ignore.

    Not counted as changes: ``results``, which runs write themselves, dvc.lock, and new files below data/, whose
    content is followed by hashes.

    Args:
        project: a folder in a repository.
        results: paths relative to the project.
    """
    commit = git(project, "rev-parse", "HEAD")
    if commit is None:
        return Code()
    own = {*results, "dvc.lock"}
    listed = _differing(project)
    known = [path for path in listed if path not in own and Path(path).name != "dvc.lock"]
    others = git(project, "ls-files", "--others", "--exclude-standard", "-z") or ""
    new = [path for path in others.split("\0") if path and path not in own and not path.startswith(_DATA)]
    new = [path for path in new if Path(path).name != "dvc.lock" and (project / path).is_file()]
    large = [path for path in new if (project / path).stat().st_size > _LARGEST_NEW_FILE]
    changed = sorted({*known, *new} - set(large))
    return Code(commit.strip(), _patch(project, changed) if changed else "", tuple(changed), tuple(large))


def _differing(project: Path) -> list[str]:
    """Tracked files that differ from the commit, by content.

    Git takes a file of unchanged size whose times fit its index for unchanged. In the copies of the project that DVC
    makes for experiments they fit too often: it writes index and parameters within a second. Git looks into every file
    where the index is older than the files, so it gets a copy of the index with a date of long ago.
    """
    listing = ("-c", "core.quotePath=false", "diff", "HEAD", "--name-only", "--relative", "-z")
    place = git(project, "rev-parse", "--git-path", "index")
    with tempfile.TemporaryDirectory() as folder:
        own: dict[str, str] = {}
        if place is not None and (index := project / place.removesuffix("\n")).is_file():
            copy = Path(folder) / "index"
            shutil.copyfile(index, copy)
            os.utime(copy, (_LONG_AGO, _LONG_AGO))
            own["GIT_INDEX_FILE"] = str(copy)
        return [path for path in (git(project, *listing, **own) or "").split("\0") if path]


def _patch(project: Path, paths: list[str]) -> str:
    """The patch, made in an index of its own: that of the user stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index"), "GIT_LITERAL_PATHSPECS": "1"}
        git(project, "read-tree", "HEAD", **index)
        git(project, "add", "--all", "--force", "--", *paths, **index)
        return git(project, "diff", "--cached", "--binary", "HEAD", **index) or ""


def dvc_state(project: Path, lock: Path | None = None) -> dict[str, str]:
    """SHA-256 of dvc.lock, which holds the hashes of every tracked input and output; empty where there is none."""
    lock = lock or project / "dvc.lock"
    return {"dvc.lock.sha256": hashlib.sha256(lock.read_bytes()).hexdigest()} if lock.is_file() else {}


def package_versions() -> dict[str, str]:
    """Versions of the packages that determine results, as tags."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def all_packages() -> dict[str, str]:
    """Every installed package and its version, by name.

    Read off the names of the folders that describe them: parsing what several hundred of them hold takes seconds.
    """
    found: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for described in sorted(Path(folder).glob("*.dist-info")):
            name, _, version = described.stem.rpartition("-")
            found.setdefault(name.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))


def machine() -> dict[str, str]:
    """Python, operating system, processor, cores, memory, and GPUs with their driver. Does not load torch."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu.cores": str(os.cpu_count()),
        "memory.gib": _memory_gib(),
        "gpu": "; ".join(gpu_names()) or "none",
    }


def seeds(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that fix random numbers, by dotted name: keys ``seed``, ``..._seed`` and ``salt``."""
    found = {}
    for key, value in parameters.items():
        last = key.rpartition(".")[2]
        if last in {"seed", "salt"} or last.endswith("_seed"):
            found[key] = str(value)
    return found


def gpu_names() -> list[str]:
    """Names and driver of the GPUs that nvidia-smi lists; empty where it is not installed."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gib() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f}"
