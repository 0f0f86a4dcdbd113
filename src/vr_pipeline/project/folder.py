"""The project around a command: its folder, and the context of an environment."""

from pathlib import Path
from typing import Any

from vr_pipeline.errors import PipelineError


class NotInProject(PipelineError):
    """A command was run outside a project folder."""


def project_folder() -> Path:
    """Return the project of the working directory. Raises :class:`NotInProject`."""
    from kedro.utils import find_kedro_project

    project = find_kedro_project(Path.cwd())
    if project is None:
        raise NotInProject("This is not a folder of the project: change to the folder with its pyproject.toml.")
    return Path(project)


def project_context(env: str) -> Any:
    """Return Kedro's context of conf/<env> over conf/base: ``params`` and ``catalog``.

    Raises:
        NotInProject: the working directory is in no project.
        kedro.config.MissingConfigException: there is no such environment.
    """
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    project = project_folder()
    bootstrap_project(project)
    context = KedroSession.create(project_path=project, env=env).load_context()
    # The context itself takes an environment that is not there for one without parameters.
    context.config_loader["parameters"]
    return context
