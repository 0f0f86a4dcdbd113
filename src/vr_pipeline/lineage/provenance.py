"""The state of data, packages and machine at the start of a run."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("vr-pipeline", "torch", "diffusers", "transformers", "peft"),
    *("kedro", "mlflow", "dvc", "numpy", "pandas", "pyarrow"),
)


def lock_hash(lock: Path) -> str:
    """Return the SHA-256 of a dvc.lock, which has the hashes of all tracked data; empty without one."""
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""


def package_versions(installed: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of the packages that determine results, as tags."""
    return {f"version.{name.replace('-', '_')}": installed[name] for name in _PACKAGES if name in installed}


def all_packages() -> dict[str, str]:
    """Return package -> version of every installed package.

    Taken from the names of their metadata folders, since parsing several hundred files takes seconds.
    """
    found: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for described in sorted(Path(folder).glob("*.dist-info")):
            name, _, version = described.stem.rpartition("-")
            found.setdefault(name.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))


def machine() -> dict[str, str]:
    """Return Python, operating system, processor, cores, memory, and GPUs with driver, without loading torch."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu.cores": str(os.cpu_count()),
        "memory.gib": _memory_gib(),
        "gpu": "; ".join(gpu_names()) or "none",
    }


def seeds(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the seeds among parameters, by dotted name: keys ``seed``, ``..._seed`` and ``salt``."""
    found = {}
    for key, value in parameters.items():
        last = key.rpartition(".")[2]
        if last in {"seed", "salt"} or last.endswith("_seed"):
            found[key] = str(value)
    return found


def gpu_names() -> list[str]:
    """Return name, memory and driver of each GPU by nvidia-smi; empty without it."""
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
