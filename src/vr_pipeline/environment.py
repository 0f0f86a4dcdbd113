"""Process settings that libraries read when they are loaded, so they have to stand before any of them is imported."""

from __future__ import annotations

import logging
import os
import sys

_TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "KEDRO_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
}
_THREADS_AND_DETERMINISM = {
    # Threads that spin while they wait make two processes on one machine many times slower than one after the other.
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    # cuBLAS chooses its workspace when CUDA starts; without this, deterministic algorithms are refused on GPUs.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
_QUIET = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DIFFUSERS_VERBOSITY": "error",
}


def prepare_environment() -> None:
    """Turn telemetry and chatter off and make threads wait politely; what the user has set already stays."""
    for name, value in {**_TELEMETRY_OFF, **_THREADS_AND_DETERMINISM, **_QUIET}.items():
        os.environ.setdefault(name, value)
    # It asks for a package with a kernel that nothing here uses, on processors with AVX512-BF16.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quieten_progress_of_libraries() -> None:
    """Keep the moving bars of libraries out of log files and pipes; :mod:`vr_pipeline.progress` has lines for those.

    For commands only: a notebook's own bars are the notebook's business. Has to come before tqdm is imported.
    """
    if not on_terminal():
        os.environ.setdefault("TQDM_DISABLE", "1")


def on_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be written over."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def colours_wanted() -> bool:
    """False where the user has set NO_COLOR to anything (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")
