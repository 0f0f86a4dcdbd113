"""Recorded runs, and how to find the one that made a given content."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.hashes import digest, ignored_names
from vr_pipeline.lineage.models import BEST, versions
from vr_pipeline.lineage.record import RECORD, RECORD_FOLDER
from vr_pipeline.lineage.tracking import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

INPUT, OUTPUT, SOURCE = "input.", "output.", "source."
"""Prefixes of tags: MD5 of a run's inputs and outputs by dataset, and the run that made an input."""
PARENT = "mlflow.parentRunId"
"""Tag of a nested run: its parent."""
_SHORTEST_PREFIX = 4
_NEWEST_FIRST = "attributes.start_time DESC"


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Args:
        status: FINISHED, FAILED, KILLED or RUNNING.
        seconds: duration; None while it runs.
        record: see :mod:`vr_pipeline.lineage.record`; empty for runs without one.
    """

    id: str
    name: str
    status: str
    started: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def short(self) -> str:
        """The first eight characters of the identifier, which the commands accept."""
        return self.id[:8]

    @property
    def commit(self) -> str:
        """The shortened commit, with a star if files differed from it."""
        commit = self.tags.get("git.commit", "")[:8] or "no commit"
        return f"{commit}*" if self.tags.get("git.dirty") == "true" else commit

    def stages(self) -> dict[str, dict[str, Any]]:
        """Return stages by name, in order of execution."""
        return dict(self.record.get("stages", {}))


def link_sources(client: MlflowClient, experiment: str, run_id: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """Tag a run with the runs that wrote its ``inputs`` (dataset -> MD5); return these by dataset."""
    found = {}
    for dataset, md5 in sorted(inputs.items()):
        makers = (str(run.info.run_id) for run in _makers(client, experiment, dataset, md5))
        if maker := next((maker for maker in makers if maker != run_id), None):
            found[dataset] = maker
    set_tags(client, run_id, {f"{SOURCE}{dataset}": maker for dataset, maker in found.items()})
    return found


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Tag a run in one call."""
    from mlflow.entities import RunTag

    if tags:
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _makers(client: MlflowClient, experiment: str, dataset: str, md5: str) -> list[Any]:
    """Return runs that wrote this content, newest first."""
    query = f"tags.`{OUTPUT}{dataset}` = '{md5}'"
    return list(client.search_runs([experiment], query, order_by=[_NEWEST_FIRST], max_results=20))


class RunStore:
    """The runs of one experiment.

    Args:
        project: folder of the project, for files named instead of runs.
    """

    def __init__(self, client: MlflowClient, experiment: str, project: Path) -> None:
        self.client, self.experiment, self.project = client, experiment, project
        self.get = lru_cache(maxsize=512)(self._get)

    def find(self, text: str) -> Run:
        """Return a run by its identifier (or its beginning), name, ``latest``, a model, file or experiment of DVC.

        Models are ``name``, ``name@alias``, ``name/version`` or ``models:/...``; a name alone is its alias ``best``, or
        the newest version. A file or folder means the newest run that wrote its content, an experiment its last run.

        Raises:
            InputError: no run, or more than one, matches.
        """
        if (version := self.model(text)) is not None:
            return self.get(str(version.run_id))
        if (made := self._of_file(text)) is not None:
            return made
        runs = list(self.all())
        if text == "latest" and runs:
            return self.get(runs[0].id)
        named = [run for run in runs if text in {run.id, run.name}]
        named = named or [run for run in runs if run.tags.get(EXPERIMENT) == text][:1]
        if not named and len(text) >= _SHORTEST_PREFIX:
            named = [run for run in runs if run.id.startswith(text)]
        if len(named) == 1:
            return self.get(named[0].id)
        known = ", ".join(f"{run.short} ({run.name})" for run in runs[:5]) or "none recorded yet"
        raise InputError(
            f"{len(named)} runs match '{text}'" if named else f"there is no run, model or recorded file '{text}'",
            remedy=f"name one run; the newest are {known}",
        )

    def all(self) -> Iterator[Run]:
        """Yield runs without their records, newest first, except nested runs."""
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], order_by=[_NEWEST_FIRST], max_results=500, page_token=token
            )
            yield from (_run(found, {}) for found in page if PARENT not in found.data.tags)
            if not (token := page.token):
                return

    def maker(self, dataset: str, md5: str, reader: Run) -> Run | None:
        """Return the run that made a reader's input: the one it names, else the newest before it with this content."""
        named = reader.tags.get(f"{SOURCE}{dataset}")
        if reader.tags.get(f"{INPUT}{dataset}") == md5 and named:
            return self.get(named)
        makers = _makers(self.client, self.experiment, dataset, md5)
        earlier = [run for run in makers if run.info.start_time <= reader.started.timestamp() * 1000]
        return self.get(str(earlier[0].info.run_id)) if earlier else None

    def model(self, text: str) -> ModelVersion | None:
        """Return the version of a registered model that ``text`` names; None for other texts."""
        from mlflow.exceptions import MlflowException

        name, _, alias = text.removeprefix("models:/").partition("@")
        name, _, number = name.partition("/")
        try:
            if alias:
                found: ModelVersion = self.client.get_model_version_by_alias(name, alias)
                return found
            if number:
                found = self.client.get_model_version(name, number) if number.isdigit() else None
                return found
            every = versions(self.client, name)
            aliases = self.client.get_registered_model(name).aliases if every else {}
            best = (one for one in every if str(one.version) == str(aliases.get(BEST)))
            return next(best, every[-1] if every else None)
        except MlflowException:
            return None

    def aliases(self, version: ModelVersion) -> list[str]:
        """Return the aliases of a version."""
        every = self.client.get_registered_model(version.name).aliases
        return sorted(alias for alias, number in every.items() if str(number) == str(version.version))

    def file(self, run: Run, name: str) -> str:
        """Return the text of a file of a run's record; empty if there is none."""
        return self._artifact(run.id, name)

    def _get(self, run_id: str) -> Run:
        found = self.client.get_run(run_id)
        text = self._artifact(run_id, RECORD)
        try:
            record = json.loads(text) if text else {}
        except ValueError as error:
            if found.info.status == "FINISHED":
                raise InputError(
                    f"the record of run {run_id[:8]} is damaged ({error})",
                    remedy="name another run, or run the pipeline again",
                    file=f"{RECORD_FOLDER}/{RECORD}",
                ) from error
            record = {}  # the run was killed while writing it
        return _run(found, record)

    def _artifact(self, run_id: str, name: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            present = {entry.path for entry in self.client.list_artifacts(run_id, RECORD_FOLDER)}
            if f"{RECORD_FOLDER}/{name}" not in present:
                return ""
            with tempfile.TemporaryDirectory() as folder:
                place = self.client.download_artifacts(run_id, f"{RECORD_FOLDER}/{name}", folder)
                return Path(place).read_bytes().decode("utf-8", errors="surrogateescape")
        except (MlflowException, OSError) as error:
            raise InputError(
                f"the files of run {run_id[:8]} cannot be read ({str(error).partition(chr(10))[0]})",
                remedy="check that the store's artifacts are at the address that the run names",
            ) from error

    def _of_file(self, text: str) -> Run | None:
        path = Path(text) if Path(text).is_absolute() else self.project / text
        content = digest(path, ignored_names(self.project)) if "/" in text else None
        if content is None:
            return None
        for listed in self.all():
            if content.md5 in {value for name, value in listed.tags.items() if name.startswith(OUTPUT)}:
                return self.get(listed.id)
        raise InputError(
            "no recorded run wrote this content", remedy="run the pipeline that creates it, or name a run", file=text
        )


def _run(found: Any, record: Mapping[str, Any]) -> Run:
    info = found.info
    started = datetime.fromtimestamp((info.start_time or 0) / 1000, tz=UTC)
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time and info.start_time else None
    return Run(info.run_id, info.run_name or "", info.status, started, dict(found.data.tags), record, seconds)
