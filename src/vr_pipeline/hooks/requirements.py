"""Before a run: is everything there that it reads and does not make itself?

A run of real models takes days. What a user has to supply, and the models that the parameters name, are looked for
before any work starts, and everything that is missing is named in one message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from pydantic import BaseModel

from vr_pipeline.errors import InputError
from vr_pipeline.hooks.commands import run_command
from vr_pipeline.project.places import shown, stored_at

_LOADING = {"gpu", "train"}


class RequirementsHook:
    """Rejects a run whose inputs or models are missing. It comes before the lock, which it does not need."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        project = Path(run_params["project_path"])
        files = missing_inputs(pipeline, catalog)
        folders, remote = missing_models(pipeline, catalog), missing_on_hub(pipeline, catalog)
        # One file may be read as several datasets.
        places: dict[Path, list[str]] = {}
        for name, place in files.items():
            places.setdefault(place, []).append(name)
        named = [f"{' and '.join(names)} ({shown(place, project)})" for place, names in places.items()]
        named += [f"the model of '{field}' ({place})" for field, place in {**folders, **remote}.items()]
        remedies = _remedies_of_files(files, run_params, project)
        if folders:
            remedies += _makers_of_folders(folders, run_params, catalog)
            remedies.append("put models into these folders, or give names on the model hub with their revision")
        if remote:
            remedies.append(
                "connect to the model hub, fetch the models on another machine into HF_HOME, or give their folders"
            )
        if named:
            raise InputError(
                f"this run needs what is not there: {', '.join(named)}", remedy="; ".join(dict.fromkeys(remedies))
            )


def _remedies_of_files(files: Mapping[str, Path], run_params: dict[str, Any], project: Path) -> list[str]:
    makers, remedies, supplied = _makers(), [], []
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
            f"you supply {', '.join(supplied)}, there or in the places that your catalog names ('kedro init-data' "
            "makes an environment of your files)"
        )
    return remedies


def _makers_of_folders(
    folders: Mapping[str, str], run_params: dict[str, Any], catalog: CatalogProtocol
) -> Iterator[str]:
    """Name the pipelines that make models which are missing: a reward or a judge that is trained here."""
    made = {Path(place).resolve(): maker for name, maker in _makers().items() if (place := stored_at(catalog, name))}
    for field, folder in folders.items():
        if maker := made.get(Path(folder).expanduser().resolve()):
            yield f"'{run_command(run_params, pipelines=[maker])}' makes the model of '{field}'"


def missing_inputs(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, Path]:
    """Free inputs of a pipeline that have a place in the catalog and are not there: name -> place, sorted."""
    found = {}
    for name in sorted(pipeline.inputs()):
        if name.startswith("params:") or name == "parameters":
            continue
        place = stored_at(catalog, name)
        if place is not None and not catalog.exists(name):
            found[name] = place
    return found


def missing_models(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """Model folders of the parameters that are not there and that no node of the pipeline makes: field -> folder."""
    made = {str(stored_at(catalog, name)) for name in pipeline.all_outputs()}
    made |= {str(Path(place).resolve()) for place in made}
    return {
        field: path
        for source in sorted(name for name in pipeline.inputs() if name.startswith("params:"))
        for field, path in model_folders(catalog.load(source), source.removeprefix("params:"))
        if not Path(path).expanduser().exists() and not {path, str(Path(path).resolve())} & made
    }


def missing_on_hub(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """Models on the hub that are neither in the cache nor to be had: fields -> name and reason.

    Only nodes that load models count: a report can be written again where the models are not.
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
    """Yield the models of a parameter block that are names on the hub: the field's name, and name and revision."""
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.judges.config import JudgeParameters
    from vr_pipeline.prompts.config import EmbedderParameters, LanguageModelParameters

    for place, part in _parts(value, field, only_enabled=True):
        if isinstance(part, GeneratorParameters | JudgeParameters):
            if part.revision is not None and _on_hub(part.path):
                yield f"{place}.path", (part.path, part.revision)
        elif isinstance(part, EmbedderParameters | LanguageModelParameters):
            if isinstance(part, EmbedderParameters):
                used = part.kind == "sentence_transformers"
            else:
                used = (part.clean or part.rewrite) and part.backend == "transformers"
            if used and _on_hub(part.model):
                yield f"{place}.model", (part.model, None)


def _on_hub(name: str) -> bool:
    from vr_pipeline.storage.hub import is_local

    return not is_local(name) and ":" not in name and not Path(name).expanduser().exists()


def model_folders(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Yield the folders of models in a parameter block, no names on the hub: the field's name and the folder."""
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.rewards.named import RewardModelParameters
    from vr_pipeline.storage.hub import is_local
    from vr_pipeline.vlm.config import JudgeParameters

    for place, part in _parts(value, field):
        if isinstance(part, GeneratorParameters | JudgeParameters) and (part.revision is None or is_local(part.path)):
            yield f"{place}.path", part.path
        if isinstance(part, JudgeParameters) and part.adapter is not None:
            yield f"{place}.adapter", part.adapter
        if isinstance(part, RewardModelParameters) and isinstance(path := (part.given or {}).get("path"), str):
            yield f"{place}.path", path


def _parts(value: Any, field: str, *, only_enabled: bool = False) -> Iterator[tuple[str, BaseModel]]:
    """Yield a parameter block and the blocks within it, by name."""
    if isinstance(value, BaseModel) and (getattr(value, "enabled", True) or not only_enabled):
        yield field, value
        for name in type(value).model_fields:
            yield from _parts(getattr(value, name), f"{field}.{name}", only_enabled=only_enabled)


def _makers() -> dict[str, str]:
    """Dataset -> the pipeline that makes it."""
    from kedro.framework.project import pipelines

    makers: dict[str, str] = {}
    # The smallest pipeline that makes a dataset is the one to run.
    for name, pipeline in sorted(pipelines.items(), key=lambda entry: -len(entry[1].nodes)):
        makers.update(dict.fromkeys(pipeline.all_outputs(), name))
    return makers
