"""Before a run: is everything there that it reads and does not make itself?

A run of real models takes days. What a user has to supply, and the models that the parameters name, are looked for
before any work starts, and everything that is missing is named in one message.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from pydantic import BaseModel

from vr_pipeline.errors import InputError
from vr_pipeline.hooks.summary import shown, stored_at

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline


class RequirementsHook:
    """Refuses a run whose inputs or model folders are missing. It comes before the lock, which it does not need."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        project = Path(run_params["project_path"])
        files = missing_inputs(pipeline, catalog)
        models = missing_models(pipeline, catalog)
        if not files and not models:
            return
        makers = _makers()
        named, remedies, supplied = [], [], []
        for name, place in files.items():
            named.append(f"{name} ({shown(place, project)})")
            if name in makers:
                remedies.append(f"'kedro run --pipeline={makers[name]}' makes {name}")
            elif place.is_relative_to(project / "data" / "01_raw" / "annotations"):
                environment = f" --env={run_params['env']}" if run_params.get("env") else ""
                remedies.append(f"'kedro annotate{environment}' collects {name}")
            else:
                supplied.append(name)
        if supplied:
            remedies.append(
                f"you supply {', '.join(supplied)}, there or in the places that your catalog names ('kedro init-data' "
                "makes an environment of your files)"
            )
        for field, path in models.items():
            named.append(f"the model of '{field}' ({path})")
        if models:
            remedies.append("put models into these folders, or give names on the model hub with their revision")
        raise InputError(
            f"this run needs what is not there: {', '.join(named)}", remedy="; ".join(dict.fromkeys(remedies))
        )


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
    named = [
        entry
        for source in sorted(name for name in pipeline.inputs() if name.startswith("params:"))
        for entry in model_folders(catalog.load(source), source.removeprefix("params:"))
    ]
    return {
        field: path
        for field, path in named
        if not Path(path).expanduser().is_dir() and not {path, str(Path(path).resolve())} & made
    }


def model_folders(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """The folders of models in a parameter block: the field's name and the folder. Names on the hub are left out."""
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.generators.contract import is_local
    from vr_pipeline.judges.config import JudgeParameters

    if isinstance(value, GeneratorParameters | JudgeParameters):
        if value.revision is None or is_local(value.path):
            yield f"{field}.path", value.path
        if isinstance(value, JudgeParameters) and value.adapter is not None:
            yield f"{field}.adapter", value.adapter
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from model_folders(getattr(value, name), f"{field}.{name}")


def _makers() -> dict[str, str]:
    """Dataset -> the pipeline that makes it."""
    from kedro.framework.project import pipelines

    makers: dict[str, str] = {}
    # The smallest pipeline that makes a dataset is the one to run.
    for name, pipeline in sorted(pipelines.items(), key=lambda entry: -len(entry[1].nodes)):
        makers.update(dict.fromkeys(pipeline.all_outputs(), name))
    return makers
