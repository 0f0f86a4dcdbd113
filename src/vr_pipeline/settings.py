"""Project settings, read by Kedro. See https://docs.kedro.org/en/stable/configure/configuration_basics/."""

from vr_pipeline.runtime.environment import prepare_environment

prepare_environment()

from vr_pipeline.datasets.catalog import ReplacingCatalog  # noqa: E402
from vr_pipeline.hooks import (  # noqa: E402
    CurveHook,
    EnvironmentHook,
    FinishedTrainingHook,
    MlflowHook,
    NodeRecordHook,
    OriginsHook,
    ParametersHook,
    ProcessSettingsHook,
    ReportRunHook,
    RequirementsHook,
    RunLockHook,
    RunSummaryHook,
    VizStatusHook,
)
from vr_pipeline.project.configuration import LOADER_ARGUMENTS, SteadyConfigLoader  # noqa: E402
from vr_pipeline.runners.session import ProjectSession  # noqa: E402

SESSION_CLASS = ProjectSession
DATA_CATALOG_CLASS = ReplacingCatalog

# Before a run, hooks are called from last to first: check inputs, take the lock, record everything. After it, hooks
# that ask to be last are called in this order: write the report's lines, release the lock, deliver the rest, name in
# the summary what was not delivered.
_nodes = NodeRecordHook()
_mlflow = MlflowHook(_nodes)
HOOKS = (
    FinishedTrainingHook(),
    VizStatusHook(_nodes),
    _mlflow,
    CurveHook(),
    _nodes,
    ProcessSettingsHook(),
    ReportRunHook(_mlflow),
    OriginsHook(),
    RunLockHook(_mlflow),
    RunSummaryHook(_nodes, _mlflow),
    RequirementsHook(),
    ParametersHook(),
    EnvironmentHook(),
)

# The first comes with Kedro and sends usage data; the second covers runs of Kedro's own sequential runner only,
# VizStatusHook covers all.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry", "kedro-viz")

CONFIG_LOADER_CLASS = SteadyConfigLoader
CONFIG_LOADER_ARGS = LOADER_ARGUMENTS
