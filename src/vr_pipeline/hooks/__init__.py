"""What happens around every run: the check of its inputs, the lock, logging, records of nodes, MLflow, the summary."""

from vr_pipeline.hooks.live_curves import CurveHook
from vr_pipeline.hooks.lock import RunLockHook
from vr_pipeline.hooks.logs import LoggingHook
from vr_pipeline.hooks.mlflow_tracking import MlflowHook
from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.hooks.report_run import ReportRunHook
from vr_pipeline.hooks.requirements import RequirementsHook
from vr_pipeline.hooks.summary import RunSummaryHook
from vr_pipeline.hooks.viz_status import VizStatusHook

__all__ = [
    "CurveHook",
    "LoggingHook",
    "MlflowHook",
    "NodeRecordHook",
    "ReportRunHook",
    "RequirementsHook",
    "RunLockHook",
    "RunSummaryHook",
    "VizStatusHook",
]
