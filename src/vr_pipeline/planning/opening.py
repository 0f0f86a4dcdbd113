"""Read what a plan needs from a project: configuration, numbers of rows, folders; no model, no session of Kedro."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from vr_pipeline.errors import InputError
from vr_pipeline.pipelines.systems import SYSTEMS, System, online_mpo
from vr_pipeline.planning.models import known_models, total_parameters
from vr_pipeline.planning.settings import ASSUMED_GPU, ASSUMED_PROMPTS, Counts, Settings
from vr_pipeline.project.configuration import BASE, LOADER_ARGUMENTS, SteadyConfigLoader, section
from vr_pipeline.project.machines import chosen_machine, read_machine
from vr_pipeline.runners.config import RayRoute, RunnerConfiguration
from vr_pipeline.storage.hub import is_cached
from vr_pipeline.training.online import OnlineParameters

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

    from vr_pipeline.work import WorkPlan

NUMBERS = ("prompts", "pairs", "preference_clips")
"""What ``--set`` takes."""
MOST_ITEMS = 20_000
"""Folders of more items are counted, and not compared with what the run would make."""


@dataclass(frozen=True)
class Opened:
    """A project, opened to be planned."""

    settings: Settings
    pipeline: Pipeline
    catalog: DataCatalog
    entries: Mapping[str, Any]
    environment: str
    machine: str | None


def open_project(
    project: Path,
    environment: str | None,
    pipeline: str | None,
    *,
    parameters: Mapping[str, Any] | None = None,
    numbers: Mapping[str, int] | None = None,
    gpus: int | None = None,
) -> Opened:
    """Read an environment, and count what is there.

    Args:
        project: its folder.
        environment: conf/<environment>; None for the personal one over base.
        pipeline: a system; None for the environment's own.
        parameters: as ``kedro run --params`` gives them.
        numbers: of :data:`NUMBERS`, instead of what is counted.
        gpus: what if there were so many, instead of what the runner has.

    Raises:
        InputError: there is no such environment, system or number.
    """
    from kedro.framework.context.context import _convert_paths_to_absolute_posix
    from kedro.io import DataCatalog

    from vr_pipeline.checklist.load import load_checklist

    conf = project / "conf"
    if environment is not None and not (conf / environment).is_dir():
        names = sorted(path.parent.name for path in conf.glob("*/globals.yml"))
        raise InputError(f"there is no environment '{environment}'", remedy=f"use one of {', '.join(names)}")
    loader = SteadyConfigLoader(str(conf), env=environment, runtime_params=dict(parameters or {}), **LOADER_ARGUMENTS)
    given = section(loader, "globals")
    blocks = _on_this_device(loader["parameters"])
    number_of_rounds = OnlineParameters.model_validate(blocks["online_mpo"]).rounds
    system = _system(pipeline or str(given.get("pipeline", SYSTEMS[0].name)), number_of_rounds)
    whole = system.pipeline()
    entries = _convert_paths_to_absolute_posix(project, dict(loader["catalog"]))
    wanted = whole.datasets()
    used = {name: entry for name, entry in entries.items() if name in wanted or "{" in name}
    catalog = DataCatalog.from_config(used)
    machine = chosen_machine()
    profile = read_machine(conf, machine) if machine else None
    settings = Settings(
        system=system,
        parameters=blocks,
        checklist=load_checklist(project / given["checklist"]),
        runner=RunnerConfiguration.model_validate(section(loader, "runner")),
        counts=_counts(catalog, used, wanted, numbers or {}),
        known=known_models(conf),
        clips=given["clips"],
        gpu=(profile.gpu if profile is not None else None) or ASSUMED_GPU,
        gpus=gpus,
    )
    return Opened(settings, whole, catalog, used, environment or BASE, machine)


def _system(name: str, number_of_rounds: int) -> System:
    planned = [*(one for one in SYSTEMS if one.selects_pairs), online_mpo(number_of_rounds)]
    for system in planned:
        if system.name == name:
            return system
    raise InputError(
        f"'{name}' cannot be planned",
        remedy=f"plan one of {', '.join(one.name for one in planned)}",
        field="--pipeline",
    )


def _on_this_device(value: Any) -> Any:
    """Say what 'auto' means, which a model would find out by loading torch: it is part of a clip's identity."""
    if isinstance(value, Mapping):
        here = "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"
        return {
            name: here if name == "device" and entry == "auto" else _on_this_device(entry)
            for name, entry in value.items()
        }
    return value


def _counts(catalog: DataCatalog, entries: Mapping[str, Any], wanted: set[str], numbers: Mapping[str, int]) -> Counts:
    """Count rows; tables of Parquet without their datasets, whose package takes long to import."""
    pairs, clips = numbers.get("pairs"), numbers.get("preference_clips", 0)
    splits, prompts, source = None, ASSUMED_PROMPTS, "assumed"
    if "prompts" in numbers:
        prompts, source = numbers["prompts"], "given"
    elif "filtered_prompts" in wanted and (found := _column(entries["filtered_prompts"], "split")) is not None:
        prompts, splits, source = len(found), dict(Counter(found)), "counted, filtered"
    elif "raw_prompts" in wanted and catalog.exists("raw_prompts"):
        prompts, source = len(catalog.load("raw_prompts")), "counted, not yet filtered"
    if (
        "training_pairs" in wanted
        and not {"pairs", "prompts"} & set(numbers)
        and (found := _column(entries["training_pairs"], "recipe")) is not None
    ):
        pairs = max(Counter(found).values(), default=0)
    if "preference_clips" not in numbers and "preference_clips" in wanted and catalog.exists("preference_clips"):
        clips = len(catalog.load("preference_clips"))
    return Counts(prompts, source, splits, pairs, clips)


def _column(entry: Mapping[str, Any], column: str) -> list[str] | None:
    """Return a column of a stored table of Parquet; None where there is none."""
    file = Path(entry["filepath"])
    if not file.is_file():
        return None
    import pyarrow.parquet as parquet

    return [str(value) for value in parquet.read_table(file, columns=[column])[column].to_pylist()]


def item_folders(opened: Opened) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return the folders of items that the system fills, with their formats, by dataset."""
    return {
        name: (Path(entry["path"]), entry["format"])
        for name in sorted(opened.pipeline.all_outputs() & set(opened.entries))
        if str((entry := opened.entries[name]).get("type")).endswith(".ManifestFolderDataset")
    }


def work_plans(opened: Opened, datasets: Mapping[str, int]) -> dict[str, WorkPlan]:
    """Return what the run would make of these datasets, where everything that says so is there. No model is loaded.

    Args:
        opened: the project.
        datasets: folders of items to the number of their items.
    """
    from vr_pipeline.work import WorkPlan

    found = {}
    for node in opened.pipeline.nodes:
        for name in node.outputs:
            if not 0 < datasets.get(name, 0) <= MOST_ITEMS or not _ready(node, opened):
                continue
            try:
                plan = node.func(*_arguments(node, opened))
            except InputError:
                # The run says what is wrong with them.
                continue
            if isinstance(plan, WorkPlan):
                found[name] = plan
    return found


def _ready(node: Node, opened: Opened) -> bool:
    """Whether all that a node reads is there; policies, which take long to load, count as not there."""
    read = [name for name in node.inputs if not name.startswith("params:")]
    return all(not name.startswith("policy_") and opened.catalog.exists(name) for name in read)


def _arguments(node: Node, opened: Opened) -> Iterator[Any]:
    hints = get_type_hints(node.func)
    for name, argument in zip(node.inputs, inspect.signature(node.func).parameters, strict=False):
        if name.startswith("params:"):
            yield hints[argument].model_validate(opened.settings.parameters[name.removeprefix("params:")])
        else:
            yield opened.catalog.load(name)


def models_of(settings: Settings) -> list[dict[str, Any]]:
    """Return the models that a run needs: field, path, bytes, licence, access, and where they are."""
    blocks = ["generator", "judge" if settings.system.reward == "checklist" else settings.system.reward_block]
    found = []
    for block in blocks:
        path, revision = settings.model(block)
        if path is None:
            continue
        facts, folder = settings.known.get(path, {}), Path(path).expanduser()
        size: float
        if block == "judge" and settings.server is not None:
            size, licence, access, here = 0, "as its server states", "by requests", settings.server.url
        elif facts:
            # Files of bfloat16 are the least; some models are published in float32.
            size, licence = 2 * total_parameters(facts), facts.get("licence", "as you got it")
            access = "gated: accept its terms, set HF_TOKEN" if facts["gated"] else "free"
            here = "in the cache" if is_cached(path, revision) else "to be fetched"
        else:
            size, licence, access = _size(folder), "as you got it", "your folder"
            here = "there" if folder.exists() else "not there"
        found.append(
            {"field": f"{block}.path", "path": path, "bytes": size, "licence": licence, "access": access, "where": here}
        )
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) if folder.is_dir() else 0


def missing_packages(settings: Settings) -> dict[str, str]:
    """Return the packages that the configuration needs and that are not installed, with the extra that has them."""
    runner = settings.runner
    routes = [runner.default, *runner.routes.values()]
    eight_bit = settings.training.training.optimizer == "adamw_8bit" or settings.judge.quantisation != "none"
    needed = {
        "ray": ("ray", runner.execution.workers > 1 or any(isinstance(route, RayRoute) for route in routes)),
        "bitsandbytes": ("gpu", eight_bit),
    }
    return {name: extra for name, (extra, wanted) in needed.items() if wanted and find_spec(name) is None}
