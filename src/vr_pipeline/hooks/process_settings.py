"""Settings of the whole process: logging, reading of clips, environment variables."""

import logging
import os
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import configure_logging

from vr_pipeline.project.configuration import section
from vr_pipeline.runtime.environment import honoured_environment, overrule, restore_overruled
from vr_pipeline.runtime.start import started
from vr_pipeline.terminal import clean_logs
from vr_pipeline.video.limits import use_settings

logger = logging.getLogger(__name__)


class ProcessSettingsHook:
    """Configures logging (logging.yml) and reading of clips (reading.yml), also for child processes."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        log_settings = section(context.config_loader, "logging")
        if log_settings and "KEDRO_LOGGING_CONFIG" not in os.environ:
            configure_logging(_anchored(log_settings, Path(context.project_path)))
        clean_logs()
        use_settings(section(context.config_loader, "reading"))

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        started()


def _anchored(settings: dict[str, Any], project: Path) -> dict[str, Any]:
    """Return logging settings with file names relative to the project, and create the folders."""
    handlers = {}
    for name, handler in settings.get("handlers", {}).items():
        handlers[name] = dict(handler)
        if "filename" in handler:
            path = project / handler["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers[name]["filename"] = str(path)
    return {**settings, "handlers": handlers}


class EnvironmentHook:
    """Overrides shell variables that contradict the configuration (:mod:`vr_pipeline.runtime.environment`)."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self) -> None:
        for sentence in overrule():
            logger.warning(sentence)
        if honoured := honoured_environment():
            logger.info("From the environment: %s", ", ".join(f"{name}={value}" for name, value in honoured.items()))

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        restore_overruled()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        restore_overruled()
