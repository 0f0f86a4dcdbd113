"""The state of code, data and machine at the start of a run, as short strings."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

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


def _git(project: Path, *arguments: str) -> str | None:
    """Output of a git command in the project; None without git, or outside a repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def git_state(project: Path) -> dict[str, str]:
    """Commit, and whether tracked files differ from it; empty outside a repository."""
    commit = _git(project, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(project, "status", "--porcelain", "--untracked-files=no")
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def dvc_state(project: Path) -> dict[str, str]:
    """SHA-256 of dvc.lock, which holds the hashes of every tracked input and output; empty where there is none."""
    lock = project / "dvc.lock"
    return {"dvc.lock.sha256": hashlib.sha256(lock.read_bytes()).hexdigest()} if lock.is_file() else {}


def package_versions() -> dict[str, str]:
    """Versions of the packages that determine results."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> dict[str, str]:
    """Python, operating system, processor, cores, and GPUs where the NVIDIA tools see any. Does not load torch."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu.cores": str(os.cpu_count()),
        "gpu": "; ".join(gpu_names()) or "none",
    }


def gpu_names() -> list[str]:
    """Names of the GPUs that nvidia-smi lists; empty where it is not installed."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]
