"""What configuration sets for the whole process: logging (logging.yml) and how clips are read (reading.yml)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import configure_logging

from vr_pipeline.project.configuration import section
from vr_pipeline.terminal import clean_logs
from vr_pipeline.video.limits import use_settings


class ProcessSettingsHook:
    """Configures this process, and those that it starts, once the project's configuration can be read."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        logging = section(context.config_loader, "logging")
        if logging and "KEDRO_LOGGING_CONFIG" not in os.environ:
            configure_logging(_anchored(logging, Path(context.project_path)))
        clean_logs()
        use_settings(section(context.config_loader, "reading"))


def _anchored(settings: dict[str, Any], project: Path) -> dict[str, Any]:
    """Logging settings whose relative file names start at the project, with their folders made."""
    handlers = {}
    for name, handler in settings.get("handlers", {}).items():
        handlers[name] = dict(handler)
        if "filename" in handler:
            path = project / handler["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers[name]["filename"] = str(path)
    return {**settings, "handlers": handlers}
