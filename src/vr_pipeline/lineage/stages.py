"""The stages of dvc.yaml, derived from the pipelines, the catalog and the parameter files.

A stage is a pipeline. All functions here are pure; :mod:`vr_pipeline.lineage.project` reads the project's files.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

PARAMETERS = "params:"
CALLER = "conf/kedro.sh"
CALL = f"sh {CALLER}"
"""Script by which stages call kedro, since DVC may run outside the activated environment, on any machine."""
_GLOBAL = re.compile(r"\$\{globals:([\w.]+)\}")
_PACKAGE = re.compile(r"(\S+?\.pipelines\.(\w+))")
_PICTURES = {".png", ".jpg", ".jpeg", ".svg", ".gif"}
_NOT_SETTINGS = {"type", "filepath", "path", "metadata", "validator", "credentials"}
"""Keys of a catalog entry without effect on the content: paths, and classes, which are tracked as source."""


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage writes.

    Args:
        path: relative to the project.
        kind: its list in the stage: outs, metrics or plots.
        persist: whether DVC keeps it in place before the stage runs, because the stage resumes from it.
        cache: whether DVC stores it; otherwise git does.
    """

    path: str
    kind: str = "outs"
    persist: bool = False
    cache: bool = True

    def to_dvc(self) -> str | dict[str, dict[str, bool]]:
        flags = {**({} if self.cache else {"cache": False}), **({"persist": True} if self.persist else {})}
        return {self.path: flags} if flags else self.path


@dataclass(frozen=True)
class Stage:
    """A pipeline as a stage of DVC. Paths are relative to the project, with forward slashes.

    Args:
        name: of the pipeline.
        description: one line.
        command: runs it.
        inputs: dataset -> path of what it reads and does not make.
        models: paths that its parameters name.
        sources: files of the project that it runs.
        parameters: file -> dotted keys.
        outputs: dataset -> output.
    """

    name: str
    description: str
    command: str
    inputs: Mapping[str, str]
    models: tuple[str, ...]
    sources: tuple[str, ...]
    parameters: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, Output]

    @property
    def dependencies(self) -> list[str]:
        """Data, then models, then source files, each once."""
        return list(dict.fromkeys([*sorted(self.inputs.values()), *sorted(self.models), *sorted(self.sources)]))

    def to_dvc(self, up: str = "") -> dict[str, Any]:
        """Return the stage as an entry of a dvc.yaml; ``up`` leads from its folder to the project."""
        entry: dict[str, Any] = {"desc": self.description} if self.description else {}
        entry |= {"cmd": self.command, **({"wdir": up} if up else {}), "deps": self.dependencies}
        if self.parameters:
            entry["params"] = [{file: list(keys)} for file, keys in sorted(self.parameters.items())]
        for kind in ("outs", "metrics", "plots"):
            listed = [output.to_dvc() for output in self.outputs.values() if output.kind == kind]
            if listed:
                entry[kind] = sorted(listed, key=lambda one: one if isinstance(one, str) else min(one))
        return entry


@dataclass(frozen=True)
class Configuration:
    """The configuration from which stages are derived.

    Args:
        environment: name of the configuration environment, ``conf/<environment>`` over ``conf/base``.
        catalog: dataset -> its resolved entry, without datasets in memory.
        constants: datasets whose value is in the catalog itself, or that it declares missing.
        parameters: those of the environment over those of base.
        catalog_files: file -> its content without interpolation, base first.
        parameter_files: file -> its content without interpolation, base first.
        catalog_keys: dataset without an entry -> its pattern in these files.
        global_files: globals.yml of each layer -> its content, base first.
    """

    environment: str
    catalog: Mapping[str, Mapping[str, Any]]
    constants: frozenset[str] = frozenset()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    catalog_files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parameter_files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    catalog_keys: Mapping[str, str] = field(default_factory=dict)
    global_files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def derive_stages(
    pipelines: Mapping[str, Pipeline],
    configuration: Configuration,
    sources: Callable[[str, Pipeline, list[str], list[str]], list[str]],
    exists: Callable[[str], bool],
) -> dict[str, Stage]:
    """Return stages by name, in the order of ``pipelines``.

    Args:
        pipelines: those that become stages.
        configuration: catalog and parameter files.
        sources: (name, pipeline, further modules, names in the parameters) -> files that it runs.
        exists: whether a path relative to the project, or its first folder, exists.

    Raises:
        InputError: a dataset between stages is not stored in a file, DVC cannot track a parameter or it is in no file,
            or two stages write to the same path.
    """
    makers = {dataset: name for name, pipeline in pipelines.items() for dataset in pipeline.all_outputs()}
    stages = {
        name: _stage(name, pipeline, makers, configuration, sources, exists) for name, pipeline in pipelines.items()
    }
    written: dict[str, str] = {}
    for name, stage in stages.items():
        for output in stage.outputs.values():
            if output.path in written:
                raise InputError(
                    f"stages {written[output.path]} and {name} both write {output.path}",
                    remedy="give each dataset its own path in the catalog",
                )
            written[output.path] = name
    return stages


def _stage(
    name: str,
    pipeline: Pipeline,
    makers: Mapping[str, str],
    configuration: Configuration,
    sources: Callable[[str, Pipeline, list[str], list[str]], list[str]],
    exists: Callable[[str], bool],
) -> Stage:
    catalog = configuration.catalog
    parameters = sorted(dataset for dataset in pipeline.inputs() if dataset == "parameters" or _is_parameter(dataset))
    inputs = {
        key: path
        for dataset in sorted(pipeline.inputs() - set(parameters) - configuration.constants)
        for key, path in _places(
            dataset,
            catalog,
            f"stage {makers[dataset]} makes it and {name} reads it" if dataset in makers else f"stage {name} reads it",
        ).items()
    }
    kept = sorted(dataset for dataset in pipeline.all_outputs() if dataset in catalog)
    outputs = {dataset: _output(dataset, catalog) for dataset in kept}
    used = sorted(entry for entry in pipeline.datasets() if entry in catalog)
    constants = sorted(pipeline.inputs() & configuration.constants)
    tracked: dict[str, list[str]] = {}
    for file, key in (*_parameters(parameters, configuration), *_settings([*used, *constants], configuration)):
        if key not in tracked.setdefault(file, []):
            tracked[file].append(key)
    values = [
        value
        for file in configuration.parameter_files
        for key in tracked.get(file, ())
        for value in _at(configuration.parameters, key)
    ]
    words = {leaf for value in values for _, leaf in _leaves(value, "") if isinstance(leaf, str)}
    made = {output.path for output in outputs.values()}
    modules = [entry["type"] for entry in (catalog[dataset] for dataset in used) if "." in str(entry["type"])]
    modules += [entry["validator"] for entry in (catalog[dataset] for dataset in used) if "validator" in entry]
    return Stage(
        name=name,
        description=_first_line(pipeline, name),
        command=f"{CALL} run --env={configuration.environment} --pipeline={name}",
        inputs=inputs,
        models=tuple(sorted({path for value in values for path in _models(value) if exists(path)} - made)),
        sources=tuple(sources(name, pipeline, modules, sorted(words))),
        parameters={file: tuple(keys) for file, keys in tracked.items()},
        outputs=outputs,
    )


def _is_parameter(dataset: str) -> bool:
    return dataset.startswith(PARAMETERS)


def _places(dataset: str, catalog: Mapping[str, Mapping[str, Any]], why: str) -> dict[str, str]:
    """Return the paths of a dataset: its own and that of its images, or of its ``sources``, files and clips."""
    entry = catalog.get(dataset, {})
    sources = entry.get("sources")
    if not isinstance(sources, Mapping):
        found = {dataset: _place(dataset, catalog, why)}
        if (images := entry.get("image_folder")) is not None:
            found |= {(key := f"{dataset}.images"): _place(key, {key: {"path": images}}, why)}
        return found
    found = {}
    for name, source in sources.items():
        parts = {"": source, "videos": source.get("videos", {}), "clips": {"filepath": source.get("clips")}}
        for part, entry in parts.items():
            if entry.get("filepath", entry.get("path")) is not None:
                key = ".".join(filter(None, (dataset, str(name), part)))
                found[key] = _place(key, {key: entry}, why)
    return found


def _place(dataset: str, catalog: Mapping[str, Mapping[str, Any]], why: str) -> str:
    """Return the path of a dataset that lineage tracks."""
    entry = catalog.get(dataset)
    place = None if entry is None else entry.get("filepath", entry.get("path"))
    if not isinstance(place, str):
        raise InputError(
            f"dataset '{dataset}' is not stored in a file, but {why}",
            remedy="add it to the catalog with a 'filepath' or 'path', so that its content can be tracked",
            field=dataset,
        )
    if "://" in place or PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
        raise InputError(
            f"dataset '{dataset}' is outside the project ({place}), where DVC cannot track it",
            remedy="set a path below the project folder; DVC's cache and remotes may be anywhere",
            field=dataset,
        )
    return PurePosixPath(place).as_posix()


def _output(dataset: str, catalog: Mapping[str, Mapping[str, Any]]) -> Output:
    entry = catalog[dataset]
    path = _place(dataset, catalog, "a stage writes it")
    metadata = entry.get("metadata") or {}
    marks, own = metadata.get("mlflow"), metadata.get("dvc") or {}
    measured = own.get("metrics", isinstance(marks, Mapping) and marks.get("metrics"))
    kind = "plots" if PurePosixPath(path).suffix.lower() in _PICTURES else "metrics" if measured else "outs"
    return Output(path, kind, persist=_takes_up(str(entry["type"])), cache=bool(own.get("cache", True)))


def _takes_up(kind: str) -> bool:
    """Return whether a dataset class resumes from existing content (its attribute ``takes_up_what_is_there``)."""
    module, _, name = kind.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return False  # classes of kedro-datasets are named without their package, and none of them resumes
    return bool(getattr(found, "takes_up_what_is_there", False))


def _parameters(names: Iterable[str], configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield file and key of every parameter, for each file that sets it."""
    files = configuration.parameter_files
    for name in names:
        everything = sorted({key for content in files.values() for key in content})
        for key in [name.removeprefix(PARAMETERS)] if _is_parameter(name) else everything:
            holders = {file: value for file, content in files.items() for value in _at(content, key)}
            if not holders:
                raise InputError(
                    f"parameter '{key}' is in no parameter file", remedy="add it to conf/base/parameters", field=key
                )
            for file, value in holders.items():
                yield file, key
                yield from _globals(file, key, value, configuration)


def _settings(datasets: Iterable[str], configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield file and key of settings in catalog entries that determine content: formats, arguments of writers."""
    for entry in dict.fromkeys(configuration.catalog_keys.get(dataset, dataset) for dataset in datasets):
        file = _last(configuration.catalog_files, entry)
        if file is None or "." in entry:
            continue
        content = configuration.catalog_files[file][entry]
        places = {key for key in ("filepath", "path") if content.get(key, "") is None}
        for key in sorted((set(content) - _NOT_SETTINGS) | places):
            yield file, f"{entry}.{key}"
            yield from _globals(file, f"{entry}.{key}", content[key], configuration)


def _globals(file: str, key: str, value: Any, configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield file and key of the globals that a value refers to.

    Raises:
        InputError: it refers to something else.
    """
    for place, leaf in _leaves(value, key):
        text = leaf if isinstance(leaf, str) else ""
        for name in _GLOBAL.findall(text):
            if holder := _last(configuration.global_files, name.partition(".")[0]):
                yield holder, name
        if "${" in _GLOBAL.sub("", text):
            raise InputError(
                f"the value refers to others ({leaf}), and DVC cannot detect their changes",
                remedy="write the value itself, or put it into globals.yml and refer to it as ${globals:NAME}",
                file=file,
                field=place,
            )


def _last(files: Mapping[str, Mapping[str, Any]], key: str) -> str | None:
    """Return the last file with a value, which replaces those before it."""
    return next((file for file, content in [*files.items()][::-1] if content.get(key) is not None), None)


def _at(content: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yield the value at a dotted key, if it exists."""
    value: Any = content
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return
        value = value[part]
    yield value


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}")
    elif isinstance(value, list):
        for entry in value:
            yield from _leaves(entry, key)
    else:
        yield key, value


def _models(value: Any) -> Iterator[str]:
    """Yield values of ``path`` or ``model`` that may be folders of the project, not names or absolute paths.

    A block with ``from: trained`` uses the folder ``trained``.
    """
    if isinstance(value, Mapping) and value.get("from") == "trained":
        value = {**value, "path": value.get("trained")}
    for key, leaf in _leaves(value, ""):
        if key.rpartition(".")[2] in {"path", "model"} and isinstance(leaf, str) and "/" in leaf:
            path = PurePosixPath(leaf)
            if not path.is_absolute() and ".." not in path.parts and "://" not in leaf:
                yield path.as_posix()


def _first_line(pipeline: Pipeline, name: str) -> str:
    """Return the first line of the docstring of a pipeline's package."""
    package = package_of(pipeline, name)
    document = importlib.import_module(package).__doc__ if package else None
    return (document or "").strip().partition("\n")[0]


def package_of(pipeline: Pipeline, name: str) -> str | None:
    """Return the package of a pipeline: of its nodes' packages the one with its name, or with the end of its name."""
    found = dict.fromkeys(_PACKAGE.findall(" ".join(modules_of(pipeline))))
    fitting = [package for package, folder in found if f"_{name}".endswith(f"_{folder}")]
    return max(fitting, key=len, default=None)


def modules_of(pipeline: Pipeline) -> list[str]:
    """Return the modules that define the functions of the nodes, in the order of the nodes."""
    return list(dict.fromkeys(_function(node).__module__ for node in pipeline.nodes))


def _function(node: Node) -> Callable[..., Any]:
    function = node.func
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def curves(catalog: Mapping[str, Mapping[str, Any]], stages: Iterable[Stage], up: str = "") -> list[dict[str, Any]]:
    """Return DVC's plots: one per column named by tables with ``metadata: {dvc: {curves: {x: step, y: [loss, ...]}}}``.

    Tables with the same column share its plot. ``up`` leads from dvc.yaml to the project.
    """
    plots: dict[tuple[str, str], dict[str, str]] = {}
    for stage in stages:
        for dataset, output in stage.outputs.items():
            mark = ((catalog[dataset].get("metadata") or {}).get("dvc") or {}).get("curves") or {"y": ()}
            for column in mark["y"]:
                plots.setdefault((mark["x"], column), {})[f"{up}/{output.path}" if up else output.path] = column
    return [{column: {"x": x, "y": dict(sorted(files.items()))}} for (x, column), files in plots.items()]


def to_dvc(stages: Iterable[Stage], plots: list[dict[str, Any]], up: str = "") -> dict[str, Any]:
    """Return the content of a dvc.yaml; see :meth:`Stage.to_dvc` and :func:`curves`."""
    content: dict[str, Any] = {"stages": {stage.name: stage.to_dvc(up) for stage in stages}}
    return {**content, "plots": plots} if plots else content
