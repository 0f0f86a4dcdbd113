"""Which decoder reads clips, and how large they may be, by conf/<env>/reading.yml."""

from __future__ import annotations

from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from vr_pipeline.video.limits import use_settings


class ReadingHook:
    """Sets how files are read for this process and those that it starts."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        try:
            settings = dict(context.config_loader["reading"])
        except MissingConfigException:
            settings = {}
        use_settings(settings)
