"""The DVC stages of a project, from its registry, configuration and source tree."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from kedro.config import AbstractConfigLoader
from kedro.pipeline import Pipeline

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.sources import SourceTree
from vr_pipeline.lineage.stages import Configuration, Stage, curves, derive_stages, modules_of, package_of, to_dvc
from vr_pipeline.project.configuration import BASE, layers, section
from vr_pipeline.project.rounds import use_rounds

WHOLE = "mpo_dpo"
"""Default pipeline whose parts are the stages; ``pipeline`` in an environment's globals.yml names another."""
FURTHER = (
    *("judge_training", "preference_reward_training", "unified_reward_training"),
    *("latent_reward_training", "ablation_study", "vlm_dpo"),
)
"""Further pipelines that are stages, each in a separate file, because the method does not need their inputs."""
STAGES_FILE, LOCK_FILE = "dvc.yaml", "dvc.lock"
_HEADER = """\
# Derived from the pipelines, the catalog and the parameter files by `kedro lineage sync`: change those, not this file.
# `dvc repro` runs what has changed; docs/lineage.md describes the rest.
"""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader in C, seven times as fast, if PyYAML has it."""


@dataclass(frozen=True)
class ProjectStages:
    """The stages of one environment."""

    stages: dict[str, Stage]
    configuration: Configuration

    def files(self, project: Path) -> dict[Path, tuple[int, str]]:
        """Return path -> number of stages and text of each dvc.yaml."""
        environment, found = self.configuration.environment, dict[Path, list[Stage]]()
        for name, stage in self.stages.items():
            found.setdefault(stages_file(project, environment, name), []).append(stage)
        texts = {}
        for path, stages in found.items():
            up = "/".join([".."] * len(path.parent.relative_to(project).parts))
            content = to_dvc(stages, curves(self.configuration.catalog, stages, up), up)
            body = yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)
            texts[path] = len(stages), f"{_HEADER}{body}"
        return texts


def parts_of(pipelines: Mapping[str, Pipeline], whole: str = WHOLE) -> dict[str, Pipeline]:
    """Return the registered pipelines that ``whole`` consists of, in order of execution.

    A pipeline that is not a sum of others is its only part.

    Raises:
        InputError: there is no pipeline of that name.
    """
    if whole not in pipelines:
        raise InputError(f"there is no pipeline '{whole}'", remedy=f"use one of {', '.join(sorted(pipelines))}")
    names = {node.name for node in pipelines[whole].nodes}
    inside = {
        name: {node.name for node in pipeline.nodes}
        for name, pipeline in pipelines.items()
        if pipeline.nodes and {node.name for node in pipeline.nodes} < names
    }
    # The largest of nested pipelines are parts; together they must have all nodes.
    largest = {name: own for name, own in inside.items() if not any(own < other for other in inside.values())}
    if set().union(*largest.values()) != names or sum(map(len, largest.values())) != len(names):
        return {whole: pipelines[whole]}
    order = {node.name: place for place, node in enumerate(pipelines[whole].nodes)}
    made = {dataset: name for name in largest for dataset in pipelines[name].all_outputs()}
    needs = {name: {made[dataset] for dataset in pipelines[name].inputs() & made.keys()} for name in largest}
    sorter, ready, sequence = TopologicalSorter(needs), list[str](), list[str]()
    try:
        sorter.prepare()
    except CycleError:
        return {whole: pipelines[whole]}  # its parts need each other, so they cannot run in sequence
    while sorter.is_active():
        ready += sorter.get_ready()
        chosen = min(ready, key=lambda name: (max(order[node] for node in largest[name]), name))
        ready.remove(chosen)
        sorter.done(chosen)
        sequence.append(chosen)
    return {name: pipelines[name] for name in sequence}


def project_stages(
    project: Path,
    loader: AbstractConfigLoader,
    pipelines: Mapping[str, Pipeline],
    environment: str,
    package: str,
) -> ProjectStages:
    """Derive the stages.

    Raises:
        InputError: see :func:`vr_pipeline.lineage.stages.derive_stages`.
    """
    from kedro.io.catalog_config_resolver import CatalogConfigResolver

    written = {name: _without_credentials(entry) for name, entry in dict(loader["catalog"]).items()}
    resolver = CatalogConfigResolver(written, {}, {})
    names = sorted({name for one in pipelines.values() for name in one.datasets()})
    entries = {name: resolver.resolve_pattern(name) for name in names}
    folders = [project / "conf" / name for name in layers(project / "conf", environment)]
    configuration = Configuration(
        environment=environment,
        catalog={name: entry for name, entry in entries.items() if entry and _is_kept(entry)},
        constants=frozenset(
            name for name, entry in written.items() if isinstance(entry, Mapping) and not _is_kept(entry)
        ),
        parameters=dict(loader["parameters"]),
        catalog_files=configuration_files(project, folders, "catalog"),
        parameter_files=configuration_files(project, folders, "parameters"),
        catalog_keys={
            name: pattern for name in names if name not in written and (pattern := resolver.match_dataset_pattern(name))
        },
        global_files=configuration_files(project, folders, "globals"),
    )
    tree = SourceTree(Path(str(importlib.import_module(package).__file__)).resolve().parents[1])

    def sources(name: str, pipeline: Pipeline, modules: list[str], words: list[str]) -> list[str]:
        own = tree.package_modules(package_of(pipeline, name) or f"{package}.pipelines.{name}")
        found = tree.used([*own, *modules_of(pipeline), *modules], words)
        return [path.relative_to(project).as_posix() for path in found if path.is_relative_to(project)]

    def exists(path: str) -> bool:
        return (project / Path(path).parts[0]).is_dir()

    stages = derive_stages(pipelines, configuration, sources, exists)
    return ProjectStages(stages, configuration)


def _without_credentials(entry: Any) -> Any:
    """Return a catalog entry without the name of its credentials."""
    return {key: value for key, value in entry.items() if key != "credentials"} if isinstance(entry, Mapping) else entry


def _is_kept(entry: Mapping[str, Any]) -> bool:
    """Return whether a dataset is stored: not in memory, and with a path."""
    in_memory = str(entry.get("type", "MemoryDataset")).endswith("MemoryDataset")
    return not in_memory and entry.get("filepath", entry.get("path", "")) is not None


def configuration_files(project: Path, folders: Iterable[Path], kind: str) -> dict[str, Mapping[str, Any]]:
    """Read the configuration files of a kind without interpolation."""
    found: dict[str, Mapping[str, Any]] = {}
    for folder in folders:
        for path in sorted({*folder.glob(f"{kind}*.y*ml"), *folder.glob(f"{kind}*/**/*.y*ml")}):
            content = _LOADER(path.read_text(encoding="utf-8")).get_single_data() or {}
            if isinstance(content, Mapping):
                found[path.relative_to(project).as_posix()] = content
    return found


def open_project(project: Path, environment: str, whole: str = WHOLE) -> ProjectStages:
    """Return the stages of the Kedro project in a folder.

    Raises:
        InputError: see :func:`project_stages`; also where the environment does not exist.
    """
    loader = configuration_loader(project, environment)
    # Available only after the project is bootstrapped.
    from kedro.framework.project import PACKAGE_NAME, pipelines

    if not (project / "conf" / environment).is_dir():
        raise InputError(
            f"there is no configuration environment '{environment}'", remedy=f"create the folder conf/{environment}"
        )
    use_rounds(loader)
    registered = dict(pipelines)
    own = str(section(loader, "globals").get("pipeline", WHOLE if WHOLE in registered else "__default__"))
    wanted = parts_of(registered, own)
    # They are optional in base, where a stage that never ran would make everything look outdated.
    for name in FURTHER if environment != BASE else ():
        if name in registered:
            wanted[name] = registered[name]
    return project_stages(project, loader, wanted, environment, str(PACKAGE_NAME))


def configuration_loader(project: Path, environment: str) -> AbstractConfigLoader:
    """Return Kedro's configuration loader for an environment, outside of a run."""
    from kedro.framework.project import settings
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(project)
    return settings.CONFIG_LOADER_CLASS(
        conf_source=str(project / settings.CONF_SOURCE), env=environment, **settings.CONFIG_LOADER_ARGS
    )


def stages_file(project: Path, environment: str, stage: str = "") -> Path:
    """Return the dvc.yaml of an environment or stage: for base in the project folder, else in ``conf/<env>``."""
    if environment == BASE:
        return project / STAGES_FILE
    return project / "conf" / environment / (stage if stage in FURTHER else "") / STAGES_FILE


def followed_environments(project: Path) -> list[str]:
    """Return base, and every environment that has a dvc.yaml."""
    found = sorted(path.parent.name for path in (project / "conf").glob(f"*/{STAGES_FILE}"))
    return [BASE, *(name for name in found if name != BASE)]


def check_places(derived: Mapping[str, ProjectStages]) -> None:
    """Check that the environments tracked by DVC write to different paths.

    Args:
        derived: environment -> stages.

    Raises:
        InputError: two write to the same path.
    """
    owners: dict[str, str] = {}
    for environment, project in derived.items():
        for stage in project.stages.values():
            for output in stage.outputs.values():
                owner = owners.setdefault(output.path, environment)
                if owner != environment:
                    raise InputError(
                        f"the environments {owner} and {environment} both write {output.path}",
                        remedy=f"set a separate data folder in conf/{environment}/globals.yml",
                        file=f"conf/{environment}",
                    )
