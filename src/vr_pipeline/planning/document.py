"""The plan as one document, and as text of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vr_pipeline.hooks.requirements import missing_inputs
from vr_pipeline.planning.bound import bounds
from vr_pipeline.planning.opening import Opened, item_folders, missing_packages, models_of, work_plans
from vr_pipeline.planning.requests import planned_requests
from vr_pipeline.planning.rounds import made, trainings
from vr_pipeline.planning.settings import Settings
from vr_pipeline.planning.stages import GIB, Work, planned_work
from vr_pipeline.planning.storage import finished_items, planned_storage, with_what_is_there
from vr_pipeline.project.places import shown
from vr_pipeline.terminal import aligned

WIDTH = 100


def plan_document(opened: Opened, project: Path) -> dict[str, Any]:
    """Compute the plan: numbers, work by stage, disk, models, and what is missing."""
    settings = opened.settings
    paired = made(settings)
    gpu, works = settings.gpu, planned_work(settings)
    folders = item_folders(opened)
    planned = planned_storage(settings)
    there = {name: len(finished_items(*folders[name])) for name in folders}
    stored = with_what_is_there(planned, folders, work_plans(opened, there))
    written = sum(one.bytes for one in stored)
    inputs = missing_inputs(opened.pipeline, opened.catalog)
    checklist = settings.system.reward == "checklist"
    return {
        "pipeline": settings.system.name,
        "environment": opened.environment,
        "machine": opened.machine,
        "gpu": gpu.model_dump() | {"assumed": opened.machine is None},
        "gpus": {"items": settings.workers, "training": settings.processes, "held": settings.held},
        "numbers": {
            "prompts": settings.counts.prompts,
            "prompts_source": settings.counts.source,
            "splits": {name: settings.prompts([name]) for name in ("train", "validation", "test")},
            "clips": sum(one.made_clips for one in paired),
            "evaluation_clips": settings.evaluated_clips,
            "questions": len(settings.checklist.questions) if checklist else 0,
            "answers": sum(one.made_clips for one in paired) * len(settings.checklist.questions) if checklist else 0,
            "comparisons": settings.comparisons if settings.system.ranks_pairs else 0,
            "pairs_of_a_recipe": paired[0].pairs,
            "pairs_source": "assumed" if settings.counts.pairs is None else "counted or given",
            "recipes": {
                name: {
                    "steps": training.training.steps,
                    "batch_size": training.training.batch_size,
                    "checkpoints": checkpoints,
                }
                for name, (training, checkpoints) in trainings(settings).items()
            },
        },
        "work": [
            {
                "stage": work.stage,
                "what": work.what,
                "number": work.number,
                "gpu_hours": work.gpu_hours(gpu.tflops),
                "hours": work.hours(gpu.tflops),
                "gpus": work.gpus,
                "cost": _cost(settings, work),
                "memory_gib": work.memory / GIB,
                "source": work.source,
            }
            for work in works
        ],
        "requests": planned_requests(settings, works),
        "disk": [
            {"name": one.name, "files": one.number, "gib": one.bytes / GIB, "source": one.source}
            | {"there": one.there, "kept": one.kept}
            for one in stored
        ],
        "disk_gib": written / GIB,
        "dvc_copy_gib": written / GIB,
        "bound": bounds(settings, works, stored),
        "models": models_of(settings),
        "missing_inputs": {name: shown(place, project) for name, place in inputs.items()},
        "missing_packages": missing_packages(settings),
    }


def _cost(settings: Settings, work: Work) -> float | None:
    """Return what the machine costs as long as a work takes, GPUs that wait included; None without a price."""
    price = settings.gpu.price_per_hour
    return None if price is None else work.hours(settings.gpu.tflops) * settings.held * price


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Return the plan for people."""
    return [*_heading(plan), *_work(plan), *_requests(plan), *_disk(plan), *_models(plan), *_missing(plan)]


def _heading(plan: dict[str, Any]) -> Iterator[str]:
    numbers, gpu = plan["numbers"], plan["gpu"]
    machine = f"machine {plan['machine']}" if plan["machine"] else "no machine profile"
    yield f"Plan of {plan['pipeline']}, environment {plan['environment']}, {machine}"
    assumed = "assumed" if gpu["assumed"] else "of the profile"
    yield f"GPU: {gpu['name']}, {gpu['memory_gib']:g} GiB, {gpu['tflops']:g} TFLOP/s sustained ({assumed})"
    yield ""
    splits = ", ".join(f"{count:,} {name}" for name, count in numbers["splits"].items())
    yield f"prompts   {numbers['prompts']:,} ({numbers['prompts_source']}): {splits}"
    yield f"clips     {numbers['clips']:,} to pair, {numbers['evaluation_clips']:,} to compare the policies"
    if numbers["answers"]:
        yield f"answers   {numbers['answers']:,} to {numbers['questions']} questions"
    if numbers["comparisons"]:
        yield f"compared  {numbers['comparisons']:,} pairs of clips"
    yield f"pairs     {numbers['pairs_of_a_recipe']:,} a recipe ({numbers['pairs_source']})"
    steps = "; ".join(
        f"{name} {one['steps']:,} steps of {one['batch_size']}, {one['checkpoints']} checkpoints"
        for name, one in numbers["recipes"].items()
    )
    yield from textwrap.wrap(f"training  {steps}", WIDTH, subsequent_indent=" " * 10)


def _work(plan: dict[str, Any]) -> Iterator[str]:
    rows = [("stage", "what", "number", "GPU-hours", "hours", "GPUs", "GiB", "figure")]
    for work in plan["work"]:
        number = f"{work['number']:,}" if work["number"] else ""
        figures = (_short(work["gpu_hours"]), _short(work["hours"]), str(work["gpus"]), _short(work["memory_gib"]))
        shown = ("",) * 4 if work["source"] in ("", "unknown") else figures
        rows.append((work["stage"], work["what"], number, *shown, work["source"]))
    total, clock = (sum(work[name] for work in plan["work"]) for name in ("gpu_hours", "hours"))
    rows.append(("all", "", "", _short(total), _short(clock), "", "", ""))
    yield ""
    yield from aligned(rows, left={0, 1, 7})
    if plan["gpu"]["price_per_hour"] is not None:
        yield from _costs(plan)
    yield "GiB: on each GPU, weights and what training keeps; workspaces come on top."
    for sentence in plan["bound"]:
        yield from _wrapped(f"bound: {sentence}.")


def _costs(plan: dict[str, Any]) -> Iterator[str]:
    """Say what each stage costs, the dearest first."""
    gpu, held = plan["gpu"], plan["gpus"]["held"]
    by_stage: dict[str, float] = {}
    for work in plan["work"]:
        by_stage[work["stage"]] = by_stage.get(work["stage"], 0.0) + work["cost"]
    dearest = sorted(by_stage.items(), key=lambda one: -one[1])
    parts = ", ".join(f"{stage} {cost:,.0f}" for stage, cost in dearest if cost >= 1)
    text = (
        f"cost: {sum(by_stage.values()):,.0f} {gpu['currency']} for {held} GPUs at {gpu['price_per_hour']:g} per hour, "
        f"those that wait included: {parts}"
    )
    yield from _wrapped(text)


def _requests(plan: dict[str, Any]) -> Iterator[str]:
    if plan["requests"] is None:
        return
    found = plan["requests"]
    rows = [("requests", "what", "number", "images", "MB", "tokens", found["currency"], "figure")]
    for one in [*found["stages"], {"stage": "all", "what": "", **found["total"]}]:
        tokens, cost = ("?" if one[name] is None else _short(one[name]) for name in ("tokens", "cost"))
        numbers = (f"{one['requests']:,}", f"{one['images']:,}", _short(one["megabytes"]), tokens, cost)
        rows.append((one["stage"], one["what"], *numbers, found["source"]))
    yield ""
    yield from aligned(rows, left={0, 1, 7})
    yield "A request is one question about one clip. MB: images and videos as they are sent; content decides."


def _disk(plan: dict[str, Any]) -> Iterator[str]:
    rows = [("disk", "files", "GiB", "figure", "finished", "kept")]
    for one in plan["disk"]:
        there = f"{one['there']:,}" if one["there"] else ""
        kept = "" if not one["there"] else "?" if one["kept"] is None else f"{one['kept']:,}"
        rows.append((one["name"], f"{one['files']:,}", _short(one["gib"]), one["source"], there, kept))
    rows.append(("all", "", _short(plan["disk_gib"]), "", "", ""))
    rows.append(("DVC's copy", "", _short(plan["dvc_copy_gib"]), "none with reflinks or hard links", "", ""))
    yield ""
    yield from aligned(rows, left={0, 3})


def _models(plan: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "models"
    for model in plan["models"]:
        size = f"{_short(model['bytes'] / GIB)} GiB or more" if model["bytes"] else "size unknown"
        yield from _wrapped(
            f"{model['path']} ({model['field']}): {size}; {model['licence']}; {model['access']}; {model['where']}"
        )


def _missing(plan: dict[str, Any]) -> Iterator[str]:
    yield ""
    if not plan["missing_inputs"] and not plan["missing_packages"]:
        yield "missing: nothing that can be seen without the models"
        return
    yield "missing"
    for name, place in plan["missing_inputs"].items():
        yield from _wrapped(f"{name}: {place}")
    for name, extra in plan["missing_packages"].items():
        yield from _wrapped(f'package {name}: pip install -c constraints.txt -e ".[{extra}]"')


def _short(value: float) -> str:
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 0.1 or not value else f"{value:.3f}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
