"""The project's session, with the default pipeline and runner of an environment."""

from collections.abc import Iterable
from typing import Any

from kedro.framework.session import KedroSession
from kedro.runner import AbstractRunner

from vr_pipeline.project.configuration import section
from vr_pipeline.runners.device_runner import DeviceRunner


class ProjectSession(KedroSession):
    """A Kedro session whose default pipeline and runner come from the configuration."""

    def run(
        self,
        pipeline_name: str | None = None,
        pipeline_names: list[str] | None = None,
        tags: Iterable[str] | None = None,
        runner: AbstractRunner | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run pipelines; arguments as for :meth:`kedro.framework.session.KedroSession.run`.

        Raises:
            InputError: the runner's configuration is not possible.
        """
        runner = runner if runner is not None else DeviceRunner()
        loader = self._get_config_loader()
        if isinstance(runner, DeviceRunner):
            runner.configure(section(loader, "runner"))
        own = section(loader, "globals").get("pipeline")
        # Kedro warns of the singular argument; it means the same.
        names = [pipeline_name] if pipeline_name else pipeline_names or ([str(own)] if own else None)
        return super().run(pipeline_names=names, tags=tags, runner=runner, **options)
