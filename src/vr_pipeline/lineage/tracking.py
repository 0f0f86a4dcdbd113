"""Where runs are recorded: the settings of conf/<env>/mlflow.yml, and a connection that fails fast or goes offline."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.explain import setting_trouble
from vr_pipeline.storage import make_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONFIGURATION_FILE = "conf/<env>/mlflow.yml"
EXPERIMENT = "dvc.experiment"
"""Tag of a run: the name of the DVC experiment that it belongs to."""
_ORIGIN = "DVC_ROOT"
_SQLITE = "sqlite:///"
_ADDRESSES = ("tracking_uri", "artifacts", "offline_uri")
_UNAUTHORISED, _FORBIDDEN, _SERVER_ERROR = 401, 403, 500
_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class MlflowConfiguration(Parameters):
    """The content of conf/<env>/mlflow.yml."""

    enabled: bool = Field(default=True, description="whether runs are recorded")
    tracking_uri: str = Field(
        default="sqlite:///mlflow.db",
        description="a SQLite file (relative ones start at the project) or the address of a tracking server; "
        "credentials come from MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN",
    )
    experiment: str = Field(default="vr_pipeline", min_length=1, description="experiment that holds the runs")
    artifacts: str = Field(
        default="mlartifacts",
        description="folder or address for files of a new experiment; a server keeps them in a place of its own unless "
        "this is an address",
    )
    when_unreachable: Literal["fail", "offline"] = Field(
        default="fail",
        description="what a run does whose tracking server does not answer: stop before any work, or record in "
        "offline_uri, from where 'kedro lineage upload' brings it to the server",
    )
    offline_uri: str = Field(default="sqlite:///mlflow-offline.db", description="SQLite file of runs to upload")
    timeout: float = Field(default=5.0, gt=0, description="seconds to wait for the tracking server's first answer")

    @field_validator(*_ADDRESSES)
    @classmethod
    def _without_credentials(cls, value: str) -> str:
        # The user of a database is no secret; a server knows neither without the other.
        address = urlsplit(value)
        if address.password is not None or ("@" in address.netloc and address.scheme in {"http", "https"}):
            raise ValueError(
                "an address must not hold credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
                "in the environment, for databases what their client reads, such as PGPASSWORD"
            )
        return value

    @property
    def is_server(self) -> bool:
        """Whether runs go to a server by HTTP."""
        return self.tracking_uri.startswith(("http://", "https://"))


def read_configuration(settings: Mapping[str, Any]) -> MlflowConfiguration:
    """Validate the settings.

    Raises:
        InputError: naming the setting that is wrong; its value is not repeated where it may hold credentials.
    """
    try:
        return MlflowConfiguration.model_validate(dict(settings))
    except ValidationError as error:
        field, trouble = setting_trouble(error, MlflowConfiguration)
        given = "" if field in _ADDRESSES else f" (got {error.errors()[0]['input']!r})"
        raise InputError(
            f"{trouble}{given}",
            remedy="correct the file",
            file=CONFIGURATION_FILE,
            field=field,
        ) from None


@dataclass(frozen=True)
class Connection:
    """An open tracking store.

    Args:
        client: to talk to it.
        uri: its address.
        experiment: identifier of the experiment that holds this project's runs.
        offline: whether it stands in for a server that did not answer.
    """

    client: MlflowClient
    uri: str
    experiment: str
    offline: bool = False


def connect(configuration: MlflowConfiguration, project: Path, *, offline: bool | None = None) -> Connection:
    """Open the tracking store and the experiment; the latter is made if it does not exist.

    Args:
        configuration: which store.
        project: where relative SQLite files and artifact folders start; see also :func:`records_folder`.
        offline: True takes the offline store, False never does, None decides by whether the server answers.

    Raises:
        InputError: the store cannot be used, or the server does not answer and going offline is not configured.
    """
    # Asked before MLflow is loaded, which takes seconds.
    if offline is None or not offline:
        trouble = unreachable(configuration)
        if trouble and (offline is False or configuration.when_unreachable == "fail"):
            raise InputError(
                f"the MLflow server at {configuration.tracking_uri} does not answer ({trouble})",
                remedy="start it or correct tracking_uri; with 'when_unreachable: offline' runs are recorded here and "
                "'kedro lineage upload' brings them to the server later",
                file=CONFIGURATION_FILE,
                field="tracking_uri",
            )
        offline = bool(trouble)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    project = records_folder(project)
    uri = anchored_uri(configuration.offline_uri if offline else configuration.tracking_uri, project)
    try:
        make_database(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = _experiment(client, configuration, project, local=offline or not configuration.is_server)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
        if not offline and configuration.is_server and (refused := _refused_login(status)):
            raise InputError(
                f"the MLflow server at {uri} {refused}",
                remedy=f"set {_LOGIN[0]} and {_LOGIN[1]}, or {_LOGIN[2]}, in the environment",
                file=CONFIGURATION_FILE,
                field="tracking_uri",
            ) from error
        raise InputError(
            f"MLflow cannot record runs at {uri} ({first_line(error)})",
            remedy="repair or move the store, or set enabled: false",
            file=CONFIGURATION_FILE,
        ) from error
    return Connection(client, uri, experiment, offline)


def make_database(uri: str) -> None:
    """Make an SQLite file that is not there yet, under another name until it is complete.

    MLflow makes its tables in dozens of steps over seconds; a file that was left in the middle of them by a kill could
    never be used again.
    """
    file = Path(uri.removeprefix(_SQLITE))
    if not uri.startswith(_SQLITE) or "?" in uri or file.exists():
        return
    from mlflow.store.db import utils

    unfinished = file.with_name(f".{file.name}.unfinished")
    for left_by_a_kill in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left_by_a_kill.unlink(missing_ok=True)
    make_file(unfinished)
    engine = utils.create_sqlalchemy_engine(f"{_SQLITE}{unfinished}")
    try:
        utils._initialize_tables(engine)
    finally:
        engine.dispose()
    if file.exists():
        # Another command was faster.
        unfinished.unlink()
    else:
        os.replace(unfinished, file)


def _refused_login(status: int) -> str:
    """What a server says of the login in the environment by a status; empty if that is not what the status is about."""
    given = " and ".join(name for name in _LOGIN if os.environ.get(name))
    if status == _UNAUTHORISED:
        return f"refuses the login in {given}" if given else "asks for a login, and the environment has none"
    return f"does not allow the login in {given or 'use'} to record runs here" if status == _FORBIDDEN else ""


def unreachable(configuration: MlflowConfiguration) -> str:
    """Why the tracking server gives no answer; empty if it does, or if there is no server."""
    if not configuration.is_server:
        return ""
    import requests

    try:
        answer = requests.get(f"{configuration.tracking_uri.rstrip('/')}/health", timeout=configuration.timeout)
    except requests.Timeout:
        return f"no answer within {configuration.timeout:g} s"
    except requests.RequestException as error:
        reason = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
        return reason[1] if reason else type(error).__name__
    return f"status {answer.status_code}" if answer.status_code >= _SERVER_ERROR else ""


def records_folder(project: Path) -> Path:
    """Where relative files and folders of records start: the project itself.

    For experiments of ``dvc exp run --queue`` and ``--temp``, DVC copies the project below its ``.dvc/tmp`` and throws
    the copy away afterwards. Their runs belong to the project that the copy was made of, which DVC names in DVC_ROOT.
    """
    origin = os.environ.get(_ORIGIN)
    if origin and project.resolve().is_relative_to(Path(origin).resolve() / ".dvc" / "tmp"):
        return Path(origin).resolve()
    return project


def experiment_tags() -> dict[str, str]:
    """Tags that say to which experiment of DVC a run belongs; empty outside of one."""
    name = os.environ.get("DVC_EXP_NAME")
    return {EXPERIMENT: name, "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", "")} if name else {}


def _experiment(client: MlflowClient, configuration: MlflowConfiguration, project: Path, *, local: bool) -> str:
    found = client.get_experiment_by_name(configuration.experiment)
    if found is not None:
        return str(found.experiment_id)
    artifacts: str | None = configuration.artifacts
    if "://" not in configuration.artifacts:
        # A folder of this machine means nothing to a server: it has a place of its own.
        artifacts = (project / configuration.artifacts).resolve().as_uri() if local else None
    return str(client.create_experiment(configuration.experiment, artifact_location=artifacts))


def anchored_uri(uri: str, project: Path) -> str:
    """A tracking address whose relative SQLite file starts at the project, wherever the command was typed."""
    if uri.startswith(_SQLITE) and not uri.startswith(_SQLITE + "/"):
        return f"{_SQLITE}{(project / uri.removeprefix(_SQLITE)).as_posix()}"
    return uri


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
