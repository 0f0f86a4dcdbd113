"""Environment variables: settings that libraries read when they are loaded, and their precedence.

Configuration decides. A variable that would lead a run elsewhere is taken out of the process, and the command says so;
one that may change the last digits or the place of work is honoured, said at the start and recorded with the run.
docs/troubleshooting.md has the same table in words.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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
    # cuBLAS chooses its workspace when CUDA starts; without this, deterministic algorithms fail on GPUs.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
_ENDS_SOON = {
    # MLflow tries a server that is away for minutes, eight times two; the work must not wait for its record.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_QUIET = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DIFFUSERS_VERBOSITY": "error",
}

_OVERRULED = {
    "conf/<env>/runner.yml": (
        *("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    ),
    "conf/<env>/mlflow.yml": (
        *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"),
        *("MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_WORKSPACE", "MLFLOW_TRACKING_DIR", "MLFLOW_REGISTRY_DIR"),
        *("MLFLOW_ARTIFACT_ROOT", "MLFLOW_DEFAULT_ARTIFACT_ROOT", "MLFLOW_TRACKING_DEFAULT_ARTIFACT_ROOT"),
    ),
    "the precision in conf/<env>/parameters": (
        *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
        *("DIFFUSERS_ATTN_BACKEND", "DIFFUSERS_SDNQ_TRANSFORMERS", "TRANSFORMERS_SDPA_FORCE_GQA"),
    ),
    "the rule that nothing is unpickled and no foreign code runs": (
        *("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "DIFFUSERS_TRUST_REMOTE_KERNELS"),
    ),
    "the folder of the project": ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "KEDRO_PROJECT_PATH"),
    "the style of the report": ("MATPLOTLIBRC",),
}
"""What decides -> the variables that it overrides."""

LOCAL_RAY = (
    *("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK", "RAY_AUTH_MODE"),
    *("RAY_OVERRIDE_RESOURCES", "RAY_NAMESPACE"),
)
"""Variables that would redirect a Ray started here, or open it to others."""

_RECORDED = re.compile(
    "(CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|GLOO|ROCR|HIP|PYTORCH|TORCH|ATEN|OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|ONEDNN|DNNL|XLA"
    "|GLIBC|MALLOC|HF|HUGGINGFACE|TRANSFORMERS|DIFFUSERS|TOKENIZERS|RAY|KEDRO|DVC|PYTHONHASHSEED|PYTHONOPTIMIZE|TZ|LANG"
    "|LC|TMPDIR|SLURM_JOB_ID|VR_PIPELINE_MACHINE)(_.*)?"
)
_ROUNDING = re.compile(
    "(CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS|PYTHONOPTIMIZE|KEDRO_ENV|HF_ENDPOINT)"
    "|(CUBLAS|CUDNN|NVIDIA|PYTORCH|TORCH|ATEN|MKL|OPENBLAS|BLIS|ONEDNN|DNNL|GLIBC)_.*"
)
_SECRET = re.compile("TOKEN(?!IZERS)|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")
_overruled: dict[str, str] = {}


@contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within a block, and restore them after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


def overrule(names: tuple[str, ...] | None = None, decides: str = "") -> list[str]:
    """Remove variables that the configuration overrides from the process; return one sentence per group.

    Args:
        names: variables; None for all that concern every command.
        decides: what does decide, for ``names``.
    """
    groups = _OVERRULED if names is None else {decides: names}
    sentences = []
    for decider, group in groups.items():
        found = [name for name in group if name in os.environ]
        for name in found:
            _overruled[name] = os.environ.pop(name)
        if found:
            sentences.append(f"Set in the environment without effect: {', '.join(found)}; {decider} decides.")
    return sentences


def restore_overruled() -> None:
    """Restore the variables that :func:`overrule` removed, unless set since; for notebooks."""
    for name, value in _overruled.items():
        os.environ.setdefault(name, value)
    _overruled.clear()


def recorded_environment() -> dict[str, str]:
    """Return environment variables that may affect a run, without secrets and those that this module sets."""
    own = {**_TELEMETRY_OFF, **_THREADS_AND_DETERMINISM, **_QUIET}
    return {
        name: _LOGIN.sub("***@", value)
        for name, value in sorted(os.environ.items())
        if _RECORDED.fullmatch(name) and not _SECRET.search(name) and own.get(name) != value
    }


def honoured_environment() -> dict[str, str]:
    """Return those of :func:`recorded_environment` that may change rounding, device or source of models."""
    return {name: value for name, value in recorded_environment().items() if _ROUNDING.fullmatch(name)}


def prepare_environment() -> None:
    """Turn telemetry and verbose libraries off and make threads wait passively; variables that are set are kept."""
    for name, value in {**_TELEMETRY_OFF, **_THREADS_AND_DETERMINISM, **_ENDS_SOON, **_QUIET}.items():
        os.environ.setdefault(name, value)
    # It asks for a package with a kernel that nothing here uses, on processors with AVX512-BF16.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quieten_progress_of_libraries() -> None:
    """Turn off progress bars of libraries in log files and pipes, which get lines (``runtime.progress``).

    For commands only: a notebook's own bars are the notebook's business. Has to come before tqdm is imported.
    """
    if not on_terminal():
        os.environ.setdefault("TQDM_DISABLE", "1")


def on_terminal() -> bool:
    """Return whether standard error is a terminal on which a line can be written over."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def colours_wanted() -> bool:
    """Return whether colours are wanted: NO_COLOR is not set (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")
