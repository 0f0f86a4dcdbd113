"""Logging by conf/<env>/logging.yml: short lines on the screen, everything with tracebacks in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import configure_logging

from vr_pipeline.terminal import clean_logs


class LoggingHook:
    """Configures logging once the project's configuration can be read."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        if "KEDRO_LOGGING_CONFIG" in os.environ:
            clean_logs()
            return
        try:
            settings = dict(context.config_loader["logging"])
        except MissingConfigException:
            return
        configure_logging(anchored(settings, Path(context.project_path)))
        clean_logs()


def anchored(settings: dict[str, Any], project: Path) -> dict[str, Any]:
    """Logging settings whose relative file names start at the project, with their folders made."""
    handlers = {}
    for name, handler in settings.get("handlers", {}).items():
        handler = dict(handler)
        if "filename" in handler:
            path = project / handler["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            handler["filename"] = str(path)
        handlers[name] = handler
    return {**settings, "handlers": handlers}
