"""The record of a run, by which it can be traced and repeated: one JSON document, and files beside it.

The document (``lineage/record.json`` of the run) describes each stage that ran as dvc.lock would: command, hashes of
dependencies, parameters, hashes of outputs. Hashes are DVC's whether or not DVC started the run.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from kedro.config import AbstractConfigLoader
from kedro.pipeline import Pipeline

from vr_pipeline.errors import InputError
from vr_pipeline.lineage import provenance
from vr_pipeline.lineage.hashes import Digest, digest, ignored_names
from vr_pipeline.lineage.project import BASE, LOCK_FILE, parts_of, project_stages, stages_file
from vr_pipeline.lineage.repository import Code, code_state
from vr_pipeline.lineage.secrets import redacted, without_secrets
from vr_pipeline.lineage.stages import Stage
from vr_pipeline.project.configuration import section
from vr_pipeline.project.machines import chosen_machine
from vr_pipeline.runtime.environment import recorded_environment

RECORD_FOLDER = "lineage"
RECORD, PATCH, CONFIGURATION = "record.json", "changes.patch", "configuration.yml"
VERSION = 1
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The safe writer in C, five times as fast, if PyYAML has it."""


def run_environment(project: Path, name: str | None) -> str:
    """Return the committed environment of a run: base instead of the personal conf/local."""
    return name if name and name != "local" and (project / "conf" / name).is_dir() else BASE


class RunRecorder:
    """Builds the record of one run.

    Args:
        loader: the run's configuration, which does not change during the run.
        names: requested pipelines.
    """

    def __init__(
        self,
        project: Path,
        loader: AbstractConfigLoader,
        names: Iterable[str],
        pipeline: Pipeline,
        environment: str | None,
        registered: Mapping[str, Pipeline],
        package: str,
    ) -> None:
        self.project, self.loader, self.pipeline = project, loader, pipeline
        self.names, self.environment = list(names), run_environment(project, environment)
        self.ignored = ignored_names(project)
        running = {node.name for node in pipeline.nodes}
        parts = {part: own for name in self.names for part, own in parts_of(registered, name).items()}
        parts = {part: own for part, own in parts.items() if running & {node.name for node in own.nodes}}
        self.nodes = {part: {node.name for node in own.nodes} for part, own in parts.items()}
        self.troubles: list[str] = []
        self.stages: dict[str, Stage] = {}
        try:
            self.stages = project_stages(project, loader, parts, self.environment, package).stages
        except InputError as error:
            self.troubles.append(f"The stages of this run are not recorded: {error}")
        self.known: dict[str, Digest] = {}
        self.content: dict[str, Any] = {}
        self.code = Code()

    def start(self, flat_parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record at the start: code, inputs, settings, machine."""
        results = {output.path for stage in self.stages.values() for output in stage.outputs.values()}
        self.code = code_state(self.project, results)
        self.troubles += self.code.troubles
        self._digest({path for stage in self.stages.values() for path in stage.dependencies} - results)
        lock, lock_hash = self.lock_file, provenance.lock_hash(self.lock_file)
        self.content = {
            "version": VERSION,
            "pipelines": self.names,
            "environment": self.environment,
            "machine_profile": chosen_machine(),
            "code": {
                "commit": self.code.commit,
                "folder": self.code.prefix,
                "dirty": self.code.dirty,
                "changed": list(self.code.changed),
                "left_out": dict(self.code.left_out),
                "patch_sha256": self.code.patch_hash,
            },
            "configuration_sha256": hashlib.sha256(self._configuration.encode()).hexdigest(),
            "troubles": self.troubles,
            "dvc_lock": {
                "path": lock.relative_to(self.project).as_posix(),
                **({"dvc.lock.sha256": lock_hash} if lock_hash else {}),
            },
            "parameters": without_secrets(self._raw_parameters()),
            "seeds": provenance.seeds(flat_parameters),
            "machine": provenance.machine(),
            "environment_variables": recorded_environment(),
            "packages": provenance.all_packages(),
            "stages": {},
            "metrics": {},
            "models": [],
        }
        self._describe(set())
        return self.content

    def finish(self, saved: Iterable[str], metrics: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """Return the record after the run.

        Args:
            metrics: written dataset -> its numbers by dotted name.
        """
        written = set(saved)
        nodes = {node.name for node in self.pipeline.nodes if set(node.outputs) <= written}
        made = [item for stage in self.stages.values() for item in stage.outputs.items()]
        self._digest(output.path for dataset, output in made if dataset in written)
        self._describe(nodes)
        self.content["metrics"] = {name: dict(values) for name, values in metrics.items()}
        return self.content

    @property
    def lock_file(self) -> Path:
        """DVC's lock of the run's environment."""
        return stages_file(self.project, self.environment, self.names[0]).with_name(LOCK_FILE)

    def write_files(self, folder: Path) -> None:
        """Write the files known at the start: the patch, the configuration, the packages and dvc.lock."""
        if self.code.changes:
            (folder / PATCH).write_bytes(self.code.changes.encode("utf-8", errors="surrogateescape"))
        packages = "".join(f"{name}=={version}\n" for name, version in self.content["packages"].items())
        (folder / "packages.txt").write_text(packages, encoding="utf-8")
        (folder / CONFIGURATION).write_text(self._configuration, encoding="utf-8")
        if self.lock_file.is_file():
            text = self.lock_file.read_text(encoding="utf-8", errors="replace")
            (folder / LOCK_FILE).write_text(redacted(text), encoding="utf-8")

    @cached_property
    def _configuration(self) -> str:
        """The run's resolved configuration as YAML, without secrets."""
        kinds = ("globals", "parameters", "catalog", "runner", "mlflow", "reading")
        resolved = {kind: section(self.loader, kind) for kind in kinds}
        plain = without_secrets(json.loads(json.dumps(resolved, default=str)))
        return str(yaml.dump(plain, Dumper=_DUMPER, sort_keys=True, allow_unicode=True))

    def write_record(self, folder: Path) -> None:
        """Write the current record."""
        text = json.dumps(without_secrets(self.content), indent=1, ensure_ascii=False)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")

    def hashes(self, role: str) -> dict[str, str]:
        """Return dataset -> MD5 of the run's ``inputs`` or ``outputs``."""
        outputs = {name: output.path for stage in self.stages.values() for name, output in stage.outputs.items()}
        inputs = {name: path for stage in self.stages.values() for name, path in stage.inputs.items()}
        places = outputs if role == "outputs" else {name: inputs[name] for name in inputs.keys() - outputs.keys()}
        return {name: self.known[path].md5 for name, path in places.items() if path in self.known}

    def _digest(self, paths: Iterable[str]) -> None:
        for path in paths:
            if (found := digest(self.project / path, self.ignored)) is not None:
                self.known[path] = found

    def _describe(self, finished: set[str]) -> None:
        for name, stage in self.stages.items():
            outputs = {output.path: dataset for dataset, output in stage.outputs.items()}
            self.content["stages"][name] = {
                "cmd": stage.command,
                "complete": self.nodes[name] <= finished,
                "deps": self._lock(stage.dependencies),
                "params": {file: self._values(keys, file) for file, keys in sorted(stage.parameters.items())},
                "outs": self._lock(outputs),
                "datasets": {path: dataset for dataset, path in stage.inputs.items()} | outputs,
                "sources": list(stage.sources),
            }

    def _lock(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        return [self.known[path].to_lock(path) for path in sorted(paths) if path in self.known]

    def _values(self, keys: Iterable[str], file: str) -> dict[str, Any]:
        """Return the run's values of the keys, including those of the command line."""
        given = section(self.loader, "catalog" if "catalog" in file else "parameters")
        return {key: _dig(given, key) for key in keys}

    def _raw_parameters(self) -> dict[str, Any]:
        """Return the parameter blocks that the run uses, including values of the command line."""
        given = section(self.loader, "parameters")
        used = {name.removeprefix("params:").partition(".")[0] for name in self.pipeline.inputs() if "params:" in name}
        return json.loads(json.dumps({name: given[name] for name in sorted(used & set(given))}, default=str))


def _dig(content: Mapping[str, Any], key: str) -> Any:
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
