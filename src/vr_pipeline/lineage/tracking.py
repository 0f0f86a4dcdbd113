"""The tracking store: settings of conf/<env>/mlflow.yml, and a connection that fails fast or goes offline."""

from __future__ import annotations

import importlib
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError, field_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.lineage.gateway import first_line, within
from vr_pipeline.runtime.setting_names import setting_trouble
from vr_pipeline.storage.atomic import make_file, sync

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONFIGURATION_FILE = "conf/<env>/mlflow.yml"
EXPERIMENT = "dvc.experiment"
"""Tag of a run: the name of the DVC experiment that it belongs to."""
_ORIGIN = "DVC_ROOT"
_SQLITE, _SQLITE_BY_NAME = "sqlite:///", "sqlite+pysqlite:///"
_ADDRESSES = ("tracking_uri", "artifacts", "offline_uri")
_UNAUTHORISED, _FORBIDDEN, _SERVER_ERROR = 401, 403, 500
_OPENING = 2
"""Time limit to open a store, in multiples of the patience."""
_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Marks the experiment as one of model training, not of language-model traces."""


class MlflowConfiguration(Parameters):
    """The content of conf/<env>/mlflow.yml."""

    enabled: bool = Field(default=True, description="whether runs are recorded")
    tracking_uri: str = Field(
        default="sqlite:///mlflow.db",
        description="a SQLite file (relative to the project) or the address of a tracking server; "
        "credentials come from MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN",
    )
    experiment: str = Field(default="vr_pipeline", min_length=1, description="experiment that holds the runs")
    artifacts: str = Field(
        default="mlartifacts",
        description="folder or address for files of a new experiment; a server uses its own folder unless this is an "
        "address",
    )
    when_unreachable: Literal["fail", "offline"] = Field(
        default="offline",
        description="if the store cannot be used when a run starts: stop before any work, or record in offline_uri, "
        "from which 'kedro lineage upload' sends the run to the store; a store that fails later never stops a run",
    )
    offline_uri: str = Field(default="sqlite:///mlflow-offline.db", description="SQLite file of runs to upload")
    timeout: float = Field(default=5.0, gt=0, description="seconds to wait for the tracking server's first answer")
    patience: float = Field(
        default=15.0,
        gt=0,
        description="seconds per call of the store, in addition to one second per MiB of files; all calls after the "
        "end of the work may take three times as long, then the record goes to offline_uri",
    )

    @field_validator(*_ADDRESSES)
    @classmethod
    def _without_credentials(cls, value: str) -> str:
        # The user of a database is not a secret; a server's login has both.
        address = urlsplit(value)
        if address.password is not None or ("@" in address.netloc and address.scheme in {"http", "https"}):
            raise ValueError(
                "an address must not contain credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
                "in the environment, or for databases the variables of their client, such as PGPASSWORD"
            )
        return value

    @property
    def is_server(self) -> bool:
        """Whether runs go to an HTTP server."""
        return self.tracking_uri.startswith(("http://", "https://"))


def read_configuration(settings: Mapping[str, Any]) -> MlflowConfiguration:
    """Validate the settings.

    Raises:
        InputError: a setting is wrong; its value is not repeated if it may contain credentials.
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
        offline: whether it replaces a store that cannot be used.
        reason: why it cannot be used.
        moved: the former artifacts' folder, if the project was moved or copied.
    """

    client: MlflowClient
    uri: str
    experiment: str
    offline: bool = False
    reason: str = ""
    moved: str = ""


def connect(configuration: MlflowConfiguration, project: Path, *, offline: bool | None = None) -> Connection:
    """Open the tracking store and the experiment, which is created if it does not exist.

    Args:
        configuration: which store.
        project: base of relative SQLite files and artifact folders; see also :func:`records_folder`.
        offline: True: the offline store, False: never, None: only if the store cannot be used.

    Raises:
        InputError: the store cannot be used, and the offline store is not configured or cannot be used either; or the
            server rejects the login.
    """
    if offline:
        return _open(configuration, project, offline=True)
    may_go_offline = offline is None and configuration.when_unreachable == "offline"
    # Checked before MLflow is loaded, which takes seconds.
    trouble = unreachable(configuration)
    if trouble and not may_go_offline:
        raise InputError(
            f"the MLflow server at {configuration.tracking_uri} does not answer ({trouble})",
            remedy="start it or correct tracking_uri; with 'when_unreachable: offline' runs are recorded here until "
            "'kedro lineage upload' sends them to the server",
            file=CONFIGURATION_FILE,
            field="tracking_uri",
        )
    try:
        if not trouble:
            return _open(configuration, project, offline=False)
    except StoreTrouble as error:
        if not may_go_offline:
            raise
        trouble = error.reason
    return replace(_open(configuration, project, offline=True), reason=trouble)


class StoreTrouble(InputError):
    """A store cannot be used, with its address and the reason in one line."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(
            f"MLflow cannot record runs at {uri} ({reason})",
            remedy="repair or move the store, or set enabled: false",
            file=CONFIGURATION_FILE,
        )
        self.uri, self.reason = uri, reason

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.uri, self.reason))


def _open(configuration: MlflowConfiguration, project: Path, *, offline: bool) -> Connection:
    """Open a store and its experiment within the time limit.

    Raises:
        StoreTrouble: it cannot be used.
        InputError: a server rejects the login.
    """
    project = records_folder(project)
    uri = anchored_uri(configuration.offline_uri if offline else configuration.tracking_uri, project)
    local = offline or not configuration.is_server

    def find() -> Connection:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment, moved = _experiment(client, configuration, project, uri, local=local)
        return Connection(client, uri, experiment, offline, moved=moved)

    try:
        # Outside the time limit: loading MLflow and making a file takes many seconds on a busy machine.
        importlib.import_module("mlflow")
        file = sqlite_file(uri)
        if file is not None and (trouble := sqlite_trouble(file, configuration.timeout)):
            raise StoreTrouble(uri, trouble)
        make_database(uri)
        return within(_OPENING * configuration.patience, find)
    except MemoryError:  # not the store's trouble
        raise
    except Exception as error:
        status_of = getattr(error, "get_http_status_code", None)
        if not local and status_of is not None and (rejected := _rejected_login(status_of())):
            raise InputError(
                f"the MLflow server at {uri} {rejected}",
                remedy=f"set {_LOGIN[0]} and {_LOGIN[1]}, or {_LOGIN[2]}, in the environment",
                file=CONFIGURATION_FILE,
                field="tracking_uri",
            ) from error
        raise StoreTrouble(uri, first_line(error)) from error


def make_database(uri: str) -> None:
    """Create an SQLite file under a temporary name until it is complete.

    MLflow creates its tables in dozens of steps; an incomplete file, left by a kill, could never be used.
    """
    file = sqlite_file(uri)
    if file is None or file.exists():
        return
    from mlflow.store.db import utils
    from sqlalchemy import event

    unfinished = file.with_name(f".{file.name}.unfinished")
    for left_by_a_kill in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left_by_a_kill.unlink(missing_ok=True)
    make_file(unfinished)
    engine = utils.create_sqlalchemy_engine(sqlite_uri(unfinished))
    # Hundreds of small steps: the file is useless until it is complete, so it is synchronised once, at the end.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    try:
        utils._initialize_tables(engine)
    finally:
        engine.dispose()
    sync(unfinished)
    if file.exists():
        # Another command has created it meanwhile.
        unfinished.unlink()
    else:
        os.replace(unfinished, file)


def sqlite_trouble(file: Path, seconds: float) -> str:
    """Return why an existing SQLite file cannot be written to; empty if it can.

    Checked before MLflow opens it, which would retry for minutes and cannot be interrupted.
    """
    if not file.exists():
        return ""
    try:
        with closing(sqlite3.connect(file, timeout=seconds, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("select count(*) from sqlite_master").fetchone()
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return f"SQLite: {error}"
    return ""


def _rejected_login(status: int) -> str:
    """Return a clause on a rejected login by a server's status; empty for other statuses."""
    given = " and ".join(name for name in _LOGIN if os.environ.get(name))
    if status == _UNAUTHORISED:
        return f"rejects the login in {given}" if given else "requires a login, and the environment has none"
    return f"does not allow the login in {given or 'use'} to record runs here" if status == _FORBIDDEN else ""


def unreachable(configuration: MlflowConfiguration) -> str:
    """Return why the tracking server does not answer; empty if it does, or without a server."""
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
    """Return the folder of relative files and folders of records: the project itself.

    For ``dvc exp run --queue`` and ``--temp``, DVC copies the project below ``.dvc/tmp`` and deletes the copy
    afterwards. Runs there belong to the original project, which DVC names in DVC_ROOT.
    """
    origin = os.environ.get(_ORIGIN)
    if origin and project.resolve().is_relative_to(Path(origin).resolve() / ".dvc" / "tmp"):
        return Path(origin).resolve()
    return project


def experiment_tags() -> dict[str, str]:
    """Return tags with a run's experiment of DVC; empty outside of one."""
    name = os.environ.get("DVC_EXP_NAME")
    return {EXPERIMENT: name, "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", "")} if name else {}


def _experiment(
    client: MlflowClient, configuration: MlflowConfiguration, project: Path, uri: str, *, local: bool
) -> tuple[str, str]:
    """Return the experiment's identifier, and its former artifacts' folder if the project was moved or copied."""
    name, place = configuration.experiment, configuration.artifacts
    artifacts: str | None = place
    if "://" not in place:
        # A server cannot use a folder of this machine; it has its own.
        artifacts = (project / place).resolve().as_uri() if local else None
    found = client.get_experiment_by_name(name)
    identifier = str(
        client.create_experiment(name, artifact_location=artifacts, tags=_KIND)
        if found is None
        else found.experiment_id
    )
    if not identifier:
        raise ValueError("the server at this address is not an MLflow server")
    if found is None:
        return identifier, ""
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"the experiment '{name}' is deleted; 'mlflow experiments restore --experiment-id {identifier}' restores it"
        )
    for key in _KIND.keys() - found.tags.keys() if local else ():
        client.set_experiment_tag(identifier, key, _KIND[key])
    before, file = str(found.artifact_location), sqlite_file(uri)
    # Whether it is the folder ``artifacts`` of some project.
    same_but_for_the_project = (
        not Path(place).is_absolute()
        and before.startswith("file://")
        and before.endswith(f"/{quote(Path(place).as_posix())}")
    )
    own = local and file is not None and file.resolve().is_relative_to(project.resolve())
    if own and artifacts is not None and before != artifacts and same_but_for_the_project:
        assert file is not None
        _relocate(file, before, artifacts)
        return identifier, before
    return identifier, ""


_LOCATIONS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def _relocate(file: Path, before: str, now: str) -> None:
    """Replace the absolute paths in MLflow's records of a moved or copied project.

    Otherwise runs in a copy would write into the original.
    """
    with closing(sqlite3.connect(file, timeout=5)) as connection, connection:
        for table, column in _LOCATIONS.items():
            connection.execute(
                f"update {table} set {column} = ? || substr({column}, ?) "
                f"where {column} = ? or substr({column}, 1, ?) = ?",
                (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )


def anchored_uri(uri: str, project: Path) -> str:
    """Return a tracking address with its SQLite file relative to the project, whatever the working directory."""
    if uri.startswith(_SQLITE) and not uri.startswith(_SQLITE + "/"):
        name, mark, options = uri.removeprefix(_SQLITE).partition("?")
        return f"{sqlite_uri(project)}/{name}{mark}{options}"
    return uri


def sqlite_uri(path: Path) -> str:
    """Return the address of an SQLite file or folder, whose path may contain ``%``, ``?`` and ``#``.

    MLflow uses the part after ``sqlite:///`` undecoded and would create its folder; SQLAlchemy decodes it.
    """
    plain = f"{_SQLITE}{path.as_posix()}"
    return plain if _database(plain) == path.as_posix() else f"{_SQLITE_BY_NAME}{quote(path.as_posix())}"


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an address; None for other stores, ``:memory:`` and ``file:`` addresses."""
    name = _database(uri) if uri.startswith((_SQLITE, _SQLITE_BY_NAME)) else ""
    return None if not name or name == ":memory:" or name.startswith("file:") else Path(name)


def _database(uri: str) -> str:
    """Return the name of a database as SQLAlchemy reads an address; some of its versions decode it."""
    if not set("%?#") & set(uri):
        return uri.partition(":///")[2]
    from sqlalchemy import make_url

    return make_url(uri).database or ""
