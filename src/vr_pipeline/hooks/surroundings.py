"""Around a run: variables of the environment that configuration overrules, and those that count, are said."""

from __future__ import annotations

import logging

from kedro.framework.hooks import hook_impl

from vr_pipeline.runtime.environment import honoured_environment, overrule, restore_overruled

logger = logging.getLogger(__name__)


class EnvironmentHook:
    """Keep variables of the shell from deciding what configuration decides (:mod:`vr_pipeline.runtime.environment`)."""

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
