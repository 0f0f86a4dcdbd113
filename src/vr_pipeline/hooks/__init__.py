"""What happens around every run: checks before it, lock, logging, records, MLflow, clearing up, summary."""

from vr_pipeline.hooks.finished_trainings import FinishedTrainingHook
from vr_pipeline.hooks.live_curves import CurveHook
from vr_pipeline.hooks.lock import RunLockHook
from vr_pipeline.hooks.mlflow_tracking import MlflowHook
from vr_pipeline.hooks.origins import OriginsHook
from vr_pipeline.hooks.parameters import ParametersHook
from vr_pipeline.hooks.process_settings import EnvironmentHook, ProcessSettingsHook
from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.hooks.report_run import ReportRunHook
from vr_pipeline.hooks.requirements import RequirementsHook
from vr_pipeline.hooks.summary import RunSummaryHook
from vr_pipeline.hooks.viz_status import VizStatusHook

__all__ = [
    "CurveHook",
    "EnvironmentHook",
    "FinishedTrainingHook",
    "MlflowHook",
    "NodeRecordHook",
    "OriginsHook",
    "ParametersHook",
    "ProcessSettingsHook",
    "ReportRunHook",
    "RequirementsHook",
    "RunLockHook",
    "RunSummaryHook",
    "VizStatusHook",
]
