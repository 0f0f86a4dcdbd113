"""Pages of the documentation that are written by the code itself: parameters, file formats, catalog.

What is a parameter, which range it has and what its default is stands in the pydantic models; what a table holds in the
pandera models. The pages are made from those at every build, so that they cannot disagree with the program.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "conf" / "base"

_UNITS = (
    (r"^seed\b|\bseed of\b|base seed", "a seed"),
    (r"^prompts\b", "prompts"),
    (r"\bframes per second\b|\b1/s\b", "1/s"),
    (r"\bseconds?\b", "seconds"),
    (r"\bGiB\b", "GiB"),
    (r"\bpixels?\b", "pixels"),
    (r"\bbytes?\b", "bytes"),
    (r"\(tokens\)|^tokens\b", "tokens"),
    (r"\(words\)|^words\b", "words"),
    (r"\(prompts\)", "prompts"),
    (r"^(?:optimiser |denoising )?steps\b|^steps between", "steps"),
    (r"^clips\b|clips (?:sampled|judged|encoded|in one)|^rendered clips", "clips"),
    (r"^frames\b|so many frames", "frames"),
    (r"^pairs\b|pairs (?:a step|of clips)|most pairs", "pairs"),
    (r"^questions\b", "questions"),
    (r"threads", "threads"),
    (r"\bGPUs?\b", "GPUs"),
    (r"CPU cores", "cores"),
    (r"^share of|\bshare\b", "share"),
    (r"probability", "probability"),
)


_TYPES = {
    "string[pyarrow]": "text",
    "str": "text",
    "int64": "whole number",
    "float64": "number",
    "bool": "true or false",
}

CONTRACTS = {
    "judges.contract.Judge": ("answer",),
    "rewards.contract.RewardModel": ("score", "score_clip", "identity", "dimensions", "close"),
    "rewards.ranker.Ranker": ("compare", "identity"),
    "generators.contract.Generator": ("sample",),
}
"""What loading gives -> what of it most programs use."""

COMMON_COLUMNS = {
    "video_id": "names a clip: a hash of prompt, sample, seed and generator, or your own name",
    "winner_video_id": "the clip with the higher total reward",
    "loser_video_id": "the other clip",
    "video_id_a": "first clip of the pair",
    "video_id_b": "second clip of the pair",
    "prompt_id": "hash of the normalised prompt",
    "prompt": "the text the clip was made for",
    "pair_id": "names a compared pair",
    "question_id": "question of the checklist",
    "split": "which part of the data the row belongs to",
    "source": "where the row comes from",
    "sample_index": "number of the clip among those of its prompt",
    "seed": "seed of the clip's noise",
    "generator": "family and hash of weights and settings that made the clip",
    "num_frames": "frames of the clip",
    "fps": "frames per second",
    "height": "pixels",
    "width": "pixels",
    "sha256": "hash of the file",
    "status": "whether the clip could be made and read",
    "error": "the reason of a failure, else empty",
    "policy": "original, dpo or mpo",
    "preference": "the clip that was preferred, or tie",
    "annotator": "who compared",
    "total": "reward of the clip",
    "margin": "difference of the total rewards",
    "dominates": "whether the winner is at least as good in every dimension",
    "step": "where it happened; in logs, the optimiser step",
    "loss": "loss of the step",
    "kept": "whether the prompt passed",
    "reason": "in words",
    "nearest_prompt_id": "the kept prompt that was too close",
    "similarity": "to that prompt: Rouge-L F1 or cosine",
    "dimension": "dimension of the checklist",
    "sub_dimension": "sub-dimension of the checklist",
}
"""What columns mean that occur in many tables; a description in the schema goes first."""


@dataclass(frozen=True)
class Parameter:
    """One setting: its dotted name below its block, and what its model says of it."""

    name: str
    kind: str
    unit: str
    range: str
    default: str
    description: str
    number: bool


def parameter_models() -> dict[str, type[BaseModel]]:
    """Model of each parameter block, as the nodes of the registered pipelines take it."""
    from vr_pipeline.pipeline_registry import register_pipelines

    models: dict[str, type[BaseModel]] = {}
    for pipeline in register_pipelines().values():
        for node in pipeline.nodes:
            arguments = list(inspect.signature(node.func).parameters.values())
            for dataset, argument in zip(node.inputs, arguments, strict=False):
                if dataset.startswith("params:"):
                    annotation = argument.annotation
                    if isinstance(annotation, str):
                        # Only this name is looked up: other annotations may be known to type checkers alone.
                        annotation = eval(annotation, inspect.unwrap(node.func).__globals__)
                    models[dataset.removeprefix("params:")] = annotation
    return dict(sorted(models.items()))


def configuration_models() -> dict[str, type[BaseModel]]:
    """Files of conf/<env> beside parameters and catalog, with their models."""
    from vr_pipeline.lineage.tracking import MlflowConfiguration
    from vr_pipeline.runners.config import RunnerConfiguration

    return {"runner.yml": RunnerConfiguration, "mlflow.yml": MlflowConfiguration}


def parameters_of(model: type[BaseModel], prefix: str = "") -> Iterator[Parameter]:
    """Every setting of a model, nested models flattened to dotted names."""
    constant = {name for name, _ in _constants(model)}
    for name, field in model.model_fields.items():
        if name in constant and prefix.endswith("]"):
            continue
        # Some names are words of Python, which files of parameters write without the underscore.
        written = field.alias or name
        dotted = f"{prefix}.{written}" if prefix else written
        inner, is_map = _nested(field.annotation)
        optional = not field.is_required() and field.default is None
        if inner and not optional:
            for each in inner:
                place = f"{dotted}.<tag>" if is_map else dotted
                # Of several kinds, one field says which it is; the others belong to that kind alone.
                mark = next((str(values[0]) for _, values in _constants(each)), "") if len(inner) > 1 else ""
                yield from parameters_of(each, f"{place}[{mark}]" if mark else place)
            continue
        yield _parameter(dotted, field, optional=optional)
        for each in inner:
            yield from parameters_of(each, dotted)


def _constants(model: type[BaseModel]) -> Iterator[tuple[str, list[Any]]]:
    """Fields that can have one value only, such as the name of a kind."""
    for name, field in model.model_fields.items():
        values = choices(field.annotation)
        if get_origin(field.annotation) is Literal and len(values) == 1:
            yield name, values


def sentence(text: str) -> str:
    """A description with a capital, unless it starts with a name in code."""
    first = text.split(" ", 1)[0]
    return text if "_" in first or first.endswith(":") else text[:1].upper() + text[1:]


def _parameter(name: str, field: FieldInfo, *, optional: bool) -> Parameter:
    number = _is_number(field.annotation)
    description = (field.description or "").strip()
    return Parameter(
        name=name,
        kind=kind(field.annotation),
        unit=unit(description, field.annotation) if number else "",
        range=limits(field),
        default=default(field),
        description=sentence(description),
        number=number,
    )


def _nested(annotation: Any) -> tuple[list[type[BaseModel]], bool]:
    """Models within an annotation, and whether they are the values of a mapping."""
    origin = get_origin(annotation)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation], False
    if origin is Annotated:
        return _nested(get_args(annotation)[0])
    if origin in (Union, UnionType):
        found = [_nested(part) for part in get_args(annotation)]
        return [model for models, _ in found for model in models], any(is_map for _, is_map in found)
    if origin in (dict, Mapping) and get_args(annotation):
        return _nested(get_args(annotation)[1])[0], True
    if origin in (list, tuple):
        return [model for part in get_args(annotation) for model in _nested(part)[0]], False
    return [], False


def _is_number(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_number(get_args(annotation)[0])
    if origin in (Union, UnionType, list, tuple):
        return any(_is_number(part) for part in get_args(annotation))
    return annotation in (int, float)


def kind(annotation: Any) -> str:
    """A type in words."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return kind(get_args(annotation)[0])
    if origin is Literal:
        return "choice"
    if origin in (Union, UnionType):
        return " or ".join("null" if part is NoneType else kind(part) for part in get_args(annotation))
    if origin in (list, tuple):
        return f"list of {kind(get_args(annotation)[0])}"
    if origin is dict:
        return "mapping"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}
    return names.get(annotation, "settings" if _nested(annotation)[0] else str(getattr(annotation, "__name__", "any")))


def choices(annotation: Any) -> list[Any]:
    """Values of a choice, wherever it stands within the annotation."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in choices(part)]


def limits(field: FieldInfo) -> str:
    """Range of a number, length of a text, or the values of a choice, also one that a table in the code has."""
    allowed = choices(field.annotation) or list(_keys_named_in(field.description or ""))
    if allowed:
        return ", ".join(f"`{value}`" for value in allowed)
    found = dict(_bounds(field.metadata))
    for part in _parts(field.annotation):
        if get_origin(part) is Annotated:
            found |= dict(_bounds(get_args(part)[1:]))
    low = next((f"{sign} {found[key]:g}" for key, sign in (("ge", "≥"), ("gt", ">")) if key in found), "")
    high = next((f"{sign} {found[key]:g}" for key, sign in (("le", "≤"), ("lt", "<")) if key in found), "")
    texts = [text for text in (low, high) if text]
    if "multiple_of" in found:
        texts.append(f"multiple of {found['multiple_of']:g}")
    if found.get("min_length"):
        texts.append("not empty" if found["min_length"] == 1 else f"at least {found['min_length']}")
    if not texts and _is_number(field.annotation):
        return "any"
    return ", ".join(texts)


def _keys_named_in(description: str) -> Iterator[str]:
    """Keys of the table that a description names: 'a key of package.module.TABLE'."""
    if found := re.search(r"a key of ([\w.]+)\.(\w+)", description):
        yield from getattr(importlib.import_module(found[1]), found[2])


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(each for part in get_args(annotation) for each in _parts(part))]


def _bounds(metadata: Any) -> Iterator[tuple[str, Any]]:
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            yield from _bounds(entry.metadata)
            continue
        for name in ("ge", "gt", "le", "lt", "multiple_of", "min_length"):
            value = getattr(entry, name, None)
            if value is not None:
                yield name, value


def unit(description: str, annotation: Any) -> str:
    """The unit that a description names; counts and figures without dimension say so."""
    for pattern, name in _UNITS:
        if re.search(pattern, description, re.IGNORECASE):
            return name
    return "count" if kind(annotation).startswith(("whole", "list of whole")) else "dimensionless"


def default(field: FieldInfo) -> str:
    """The default as it would be written in YAML."""
    if field.is_required():
        return "**required**"
    value = field.default_factory() if field.default_factory is not None else field.default  # type: ignore[call-arg]
    if value is PydanticUndefined:
        return "**required**"
    return code(value)


def code(value: Any) -> str:
    """A value in YAML's notation, short."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple):
        value = list(value)
    if value == "":
        return "`''`"
    if isinstance(value, float):
        return f"`{value:g}`"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("\n...\n").strip()
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def base_values(block: str) -> dict[str, Any]:
    """What conf/base sets in a block, flattened; empty if it has no such block."""
    for path in sorted((BASE / "parameters").glob("*.yml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if block in values:
            return dict(_flat(values[block]))
    return {}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def parameters_page() -> str:
    """The reference of all parameters, as Markdown."""
    models, files = parameter_models(), configuration_models()
    links = [f"[{name}](#{name.replace('.', '')})" for name in (*models, *files)]
    lines = [
        "---",
        "hide: [toc]",
        "---",
        "",
        "# Parameters",
        "",
        "Written from the models that check them, when this site is built. A block stands in",
        "`conf/<env>/parameters/<block>.yml`; an environment states only what it changes. An unknown key or a value",
        "out of its range stops a run before any node starts. For one run: `kedro run --params=evaluation.seed=3`.",
        "",
        "*Default* holds where no file says otherwise; *demo* is what `conf/base` sets for the embedded micro-world.",
        "A name such as `routes.<tag>[ray].num_cpus` belongs to routes of `backend: ray` only.",
        "",
        f"Blocks: {', '.join(links)}.",
        "",
    ]
    for block, model in models.items():
        lines += [f"## {block}", "", *_documentation(model), *_table(model, base_values(block)), ""]
    for file, model in files.items():
        path = BASE / file
        values = dict(_flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {})) if path.is_file() else {}
        lines += [f"## {file}", "", f"The file `conf/<env>/{file}`.", "", *_table(model, values), ""]
    return "\n".join(lines)


def _documentation(model: type[BaseModel]) -> list[str]:
    text = inspect.cleandoc(model.__doc__ or "")
    return [text, ""] if text else []


def _table(model: type[BaseModel], demo: Mapping[str, Any]) -> list[str]:
    rows = ["| name | meaning | type (unit) | range | default | demo |", "|---|---|---|---|---|---|"]
    seen = set()
    for entry in parameters_of(model):
        key = (entry.name, entry.range, entry.description)
        if key in seen:
            continue
        seen.add(key)
        set_here = code(demo[entry.name]) if entry.name in demo else ""
        typed = f"{entry.kind} ({entry.unit})" if entry.unit else entry.kind
        cells = [f"`{entry.name}`", entry.description, typed, entry.range, entry.default, set_here]
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return rows


def api_page() -> str:
    """Every public name of the package in the groups of its docstring, for mkdocstrings to document."""
    import vr_pipeline as vr

    introduction, *groups = re.split(r"^([A-Z][a-z]+) {2,}", inspect.cleandoc(vr.__doc__ or ""), flags=re.MULTILINE)
    lines = ["# API", "", introduction.replace("docs/from_python.md", "[From Python](from_python.md)"), ""]
    for heading, names in zip(groups[::2], groups[1::2], strict=True):
        lines += [f"## {heading}", ""]
        for name in re.split(r"[,\s]+", names.strip()):
            lines += [f"::: {getattr(vr, name).__module__}.{name}", ""]
    lines += ["## What is loaded", ""]
    for name, members in CONTRACTS.items():
        lines += [f"::: vr_pipeline.{name}", f"    options: {{members: [{', '.join(members)}]}}", ""]
    return "\n".join(lines)


def catalog() -> dict[str, dict[str, Any]]:
    """The entries of conf/base by dataset, with interpolation resolved."""
    from kedro.config import OmegaConfigLoader

    loader = OmegaConfigLoader(conf_source=str(ROOT / "conf"), base_env="base", default_run_env="base")
    return dict(loader["catalog"])


def table_models() -> dict[str, Any]:
    """The table models of the catalog's validators and those they derive from."""
    import pandera.pandas as pa

    from vr_pipeline import schemas

    return {
        name: value
        for name, value in vars(schemas).items()
        if inspect.isclass(value)
        and issubclass(value, pa.DataFrameModel)
        and value.__module__ == schemas.__name__
        and name != "Table"
    }


def formats_page() -> str:
    """Tables of the catalog and their columns, as Markdown."""
    entries = catalog()
    lines = []
    for name, model in sorted(table_models().items()):
        users = sorted(
            entry for entry, value in entries.items() if value.get("validator") == f"vr_pipeline.schemas.{name}"
        )
        lines += [f"### {name}", "", inspect.cleandoc(model.__doc__ or ""), ""]
        if users:
            lines += ["Datasets: " + ", ".join(f"`{user}`" for user in users) + ".", ""]
        lines += ["| column | type | rule | meaning |", "|---|---|---|---|", *_columns(model), ""]
    lines += ["## Every dataset", "", "| dataset | kind | place | pipeline that makes it |", "|---|---|---|---|"]
    makers = _makers()
    for name, entry in sorted(entries.items()):
        place = entry.get("filepath", entry.get("path", ""))
        kind_of = str(entry["type"]).rsplit(".", 1)[-1]
        lines.append(f"| `{name}` | {kind_of} | `{place}` | {makers.get(name, 'you, or shipped')} |")
    return "\n".join(lines)


def _makers() -> dict[str, str]:
    from vr_pipeline.pipeline_registry import register_pipelines

    registry = register_pipelines()
    single = {name: pipeline for name, pipeline in registry.items() if name not in {"mpo_dpo", "__default__"}}
    return {dataset: name for name, pipeline in single.items() for dataset in pipeline.all_outputs()}


def _columns(model: Any) -> list[str]:
    schema = model.to_schema()
    rows = []
    for name, column in schema.columns.items():
        shown = f"`{name}`" if not column.regex else f"`{str(name).strip('^$').replace('.+', '<name>')}`"
        rules = [*(_rule(check) for check in column.checks)]
        rules += ["no two alike"] if column.unique else []
        rules += ["may be missing"] if column.nullable else []
        rules += ["optional"] if not column.required and not column.regex else []
        cells = [
            shown,
            _TYPES.get(str(column.dtype), str(column.dtype)),
            "; ".join(filter(None, rules)),
            column.description or COMMON_COLUMNS.get(str(name), ""),
        ]
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return rows


def _rule(check: Any) -> str:
    values = check.statistics or {}
    wording = {
        "greater_than_or_equal_to": "≥ {min_value:g}",
        "greater_than": "> {min_value:g}",
        "less_than_or_equal_to": "≤ {max_value:g}",
        "less_than": "< {max_value:g}",
    }
    if check.name in wording:
        return wording[check.name].format(**values)
    if check.name == "isin":
        return "one of " + ", ".join(str(value) for value in values["allowed_values"])
    if check.name == "str_length":
        return "not empty" if values.get("min_value") == 1 else str(values)
    return str(check.error or check.name)
