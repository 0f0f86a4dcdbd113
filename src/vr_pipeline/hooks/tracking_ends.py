"""Waiting for the tracking store, before the project's lock is taken and after it is free again."""

from __future__ import annotations

from kedro.framework.hooks import hook_impl

from vr_pipeline.hooks.mlflow_tracking import MlflowHook


class TrackingEndsHook:
    """Opens the store before a run has the lock, and delivers what is left after it has given it back.

    Args:
        mlflow: what records.
    """

    def __init__(self, mlflow: MlflowHook) -> None:
        self._mlflow = mlflow

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self) -> None:
        self._mlflow.connect()

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        self._mlflow.finish()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        self._mlflow.finish()
