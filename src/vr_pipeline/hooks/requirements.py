"""Check before a run that all its inputs and models exist.

A run of real models takes days, so one message names every missing file and model before any work starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from pydantic import BaseModel

from vr_pipeline.errors import InputError
from vr_pipeline.hooks.commands import run_command
from vr_pipeline.hooks.trained_models import check_trained_models
from vr_pipeline.project.places import shown, stored_at

if TYPE_CHECKING:
    from vr_pipeline.rewards.named import RewardModelParameters

_LOADING = {"gpu", "train"}


class RequirementsHook:
    """Rejects a run whose inputs or models are missing, before the project is locked."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        check_trained_models(pipeline, catalog)
        project = Path(run_params["project_path"])
        files = missing_inputs(pipeline, catalog)
        folders, remote = missing_models(pipeline, catalog), missing_on_hub(pipeline, catalog)
        # Several datasets may read one file.
        places: dict[Path, list[str]] = {}
        for name, place in files.items():
            places.setdefault(place, []).append(name)
        named = [f"{' and '.join(names)} ({shown(place, project)})" for place, names in places.items()]
        named += [f"the model of '{field}' ({place})" for field, place in {**folders, **remote}.items()]
        remedies = _remedies_of_files(files, run_params, project, catalog)
        if folders:
            remedies += _makers_of_folders(folders, run_params, catalog)
            remedies.append("put models into these folders, or give names on the model hub with their revision")
        if remote:
            remedies.append(
                "connect to the model hub, fetch the models on another machine into HF_HOME, or give their folders"
            )
        if named:
            raise InputError(
                f"inputs of this run are missing: {', '.join(named)}", remedy="; ".join(dict.fromkeys(remedies))
            )


def _remedies_of_files(
    files: Mapping[str, Path], run_params: dict[str, Any], project: Path, catalog: CatalogProtocol
) -> list[str]:
    if not files:
        return []
    # A dataset may read a file that another one writes.
    places = _makers_of_places(run_params, catalog)
    makers = {name: places[place.resolve()] for name, place in files.items() if place.resolve() in places}
    makers |= _makers(run_params)
    remedies, supplied = [], []
    for maker in sorted({makers[name] for name in files if name in makers}):
        made = ", ".join(name for name in files if makers.get(name) == maker)
        remedies.append(f"'{run_command(run_params, pipelines=[maker])}' makes {made}")
    for name, place in files.items():
        if name in makers:
            continue
        if place.is_relative_to(project / "data" / "01_raw" / "annotations"):
            environment = f" --env={run_params['env']}" if run_params.get("env") else ""
            remedies.append(f"'kedro annotate{environment}' collects {name}")
        else:
            supplied.append(name)
    if supplied:
        remedies.append(
            f"supply {', '.join(supplied)} there, or change the paths in your catalog ('kedro init-data' makes an "
            "environment for your files)"
        )
    return remedies


def _makers_of_folders(
    folders: Mapping[str, str], run_params: dict[str, Any], catalog: CatalogProtocol
) -> Iterator[str]:
    """Yield remedies for missing models that a pipeline trains: rewards and judges."""
    made = _makers_of_places(run_params, catalog) if folders else {}
    for field, folder in folders.items():
        if maker := made.get(Path(folder).expanduser().resolve()):
            yield f"'{run_command(run_params, pipelines=[maker])}' makes the model of '{field}'"


def _makers_of_places(run_params: dict[str, Any], catalog: CatalogProtocol) -> dict[Path, str]:
    """Return path -> pipeline that creates it."""
    makers = _makers(run_params)
    return {place.resolve(): maker for name, maker in makers.items() if (place := stored_at(catalog, name))}


def missing_inputs(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, Path]:
    """Return inputs of a pipeline that the catalog stores and that do not exist, sorted: name -> path."""
    found = {}
    for name in sorted(pipeline.inputs()):
        if name.startswith("params:") or name == "parameters":
            continue
        place = stored_at(catalog, name)
        if place is not None and not catalog.exists(name):
            found[name] = place
    return found


def missing_models(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """Return missing model folders of the parameters that no node of the pipeline makes: field -> folder."""
    made = {str(stored_at(catalog, name)) for name in pipeline.all_outputs()}
    made |= {str(Path(place).resolve()) for place in made}
    return {
        field: path
        for source in sorted(name for name in pipeline.inputs() if name.startswith("params:"))
        for field, path in model_folders(catalog.load(source), source.removeprefix("params:"))
        if not Path(path).expanduser().exists() and not {path, str(Path(path).resolve())} & made
    }


def missing_on_hub(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """Return models that are neither in the hub's cache nor available: fields -> name and reason.

    Only nodes that load models count; a report can be written again without them.
    """
    nodes = [node for node in pipeline.nodes if node.tags & _LOADING]
    named: dict[tuple[str, str | None], list[str]] = {}
    for source in sorted({name for node in nodes for name in node.inputs if name.startswith("params:")}):
        for field, model in hub_models(catalog.load(source), source.removeprefix("params:")):
            named.setdefault(model, []).append(field)
    if not named:
        return {}
    from vr_pipeline.storage.hub import unavailable

    reasons = unavailable(named)
    return {"', '".join(named[model]): f"{model[0]}: {reason}" for model, reason in reasons.items()}


def hub_models(value: Any, field: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield the hub models of a parameter block: field, and (name, revision)."""
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.judges.config import JudgeParameters
    from vr_pipeline.prompts.config import EmbedderParameters, LanguageModelParameters
    from vr_pipeline.rewards.named import RewardModelParameters

    for place, part in _parts(value, field, only_enabled=True):
        if isinstance(part, GeneratorParameters | JudgeParameters):
            if part.revision is not None and _on_hub(part.path):
                yield f"{place}.path", (part.path, part.revision)
        elif isinstance(part, RewardModelParameters):
            path, revision = _reward(part)
            if path is not None and revision is not None and _on_hub(path):
                yield f"{place}.path", (path, revision)
        elif isinstance(part, EmbedderParameters | LanguageModelParameters):
            if isinstance(part, EmbedderParameters):
                used = part.kind == "sentence_transformers"
            else:
                used = (part.clean or part.rewrite) and part.backend == "transformers"
            if used and _on_hub(part.model):
                yield f"{place}.model", (part.model, getattr(part, "revision", None))


def _on_hub(name: str) -> bool:
    from vr_pipeline.storage.hub import is_local

    return not is_local(name) and ":" not in name and not Path(name).expanduser().exists()


def model_folders(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Yield the local models of a parameter block: field and folder."""
    from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
    from vr_pipeline.rewards.named import RewardModelParameters
    from vr_pipeline.storage.hub import is_local
    from vr_pipeline.vlm.config import JudgeParameters

    for place, part in _parts(value, field):
        if isinstance(part, GeneratorParameters | JudgeParameters) and (part.revision is None or is_local(part.path)):
            yield f"{place}.path", part.path
        if isinstance(part, GuidanceReward):
            yield f"{place}.model", part.model
        if isinstance(part, JudgeParameters) and part.adapter is not None:
            yield f"{place}.adapter", part.adapter
        if isinstance(part, RewardModelParameters):
            path, revision = _reward(part)
            if path is not None and (revision is None or is_local(path)):
                yield f"{place}.path", path


def _reward(reward: RewardModelParameters) -> tuple[str | None, str | None]:
    """Return path and revision of a reward whose settings have them."""
    given = reward.given or {}
    path, revision = given.get("path"), given.get("revision")
    return path if isinstance(path, str) else None, revision if isinstance(revision, str) else None


def _parts(value: Any, field: str, *, only_enabled: bool = False) -> Iterator[tuple[str, BaseModel]]:
    """Yield a parameter block and the blocks within it, by their names in YAML."""
    if getattr(value, "served", False):  # a judge behind a server: no model is needed here
        return
    if isinstance(value, BaseModel) and (getattr(value, "enabled", True) or not only_enabled):
        yield field, value
        for name, information in type(value).model_fields.items():
            place = f"{field}.{information.alias or name}"
            yield from _parts(getattr(value, name), place, only_enabled=only_enabled)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _parts(part, f"{field}.{name}", only_enabled=only_enabled)


def _makers(run_params: dict[str, Any]) -> dict[str, str]:
    """Return dataset -> pipeline that creates it: a requested one, else the default, else the smallest."""
    from kedro.framework.project import pipelines

    asked = run_params.get("pipeline_names") or [run_params.get("pipeline_name") or "__default__"]
    wanted = {node.name for name in asked if name in pipelines for node in pipelines[name].nodes}
    default = {node.name for node in pipelines["__default__"].nodes} if "__default__" in pipelines else set()
    makers: dict[str, str] = {}

    def rank(entry: tuple[str, Pipeline]) -> tuple[bool, bool, int]:
        made = {node.name for node in entry[1].nodes}
        return made <= wanted, made <= default, -len(made)

    for name, pipeline in sorted(pipelines.items(), key=rank):
        makers.update(dict.fromkeys(pipeline.all_outputs(), name))
    return makers
