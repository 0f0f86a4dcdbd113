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

# Before a run the last one is called first: inputs are looked for, the lock is held, all is recorded.
# After it those that say "last" come in this order: the report's lines, the lock is free, the rest is delivered, the
# summary names what was not.
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

# The first comes with Kedro and sends usage data; the second follows runs of Kedro's own sequential runner only, where
# VizStatusHook follows all.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry", "kedro-viz")

CONFIG_LOADER_CLASS = SteadyConfigLoader
CONFIG_LOADER_ARGS = LOADER_ARGUMENTS
