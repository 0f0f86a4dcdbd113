"""Allow one run at a time in a project, since two would write the same files."""

import logging
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from kedro.framework.hooks import hook_impl

from vr_pipeline.errors import InputError
from vr_pipeline.hooks.mlflow_tracking import MlflowHook

logger = logging.getLogger(__name__)

LOCK_FILE = ".run.lock"


class RunLockHook:
    """Locks the project during a run; a second run waits. The lock of a process that dies is released.

    The tracking store is opened before locking, and the rest of the record is delivered after release.
    """

    def __init__(self, mlflow: MlflowHook) -> None:
        self._mlflow = mlflow
        self._lock: FileLock | None = None

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        # Kedro calls no hook after another hook rejected a run; in a notebook this process then starts the next one.
        self._release()
        self._mlflow.connect()
        path = Path(run_params["project_path"]) / LOCK_FILE
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("Another run is active in this project; waiting for it to end (Ctrl-C gives up).")
            lock.acquire()
        except OSError as error:
            raise InputError(
                f"the project folder cannot be written ({error.strerror})", remedy="make it writable", file=path
            ) from error
        self._lock = lock

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        self._release()
        self._mlflow.finish()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        self._release()
        self._mlflow.finish()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
