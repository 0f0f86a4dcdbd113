"""All checks of users' files together, a summary of the environment, and the next commands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.generators import family_of
from vr_pipeline.own_data import checks
from vr_pipeline.own_data.environment import OwnFiles
from vr_pipeline.own_data.findings import Findings
from vr_pipeline.prompts.read import read_prompts
from vr_pipeline.vlm.config import ChecklistJudgeParameters

if TYPE_CHECKING:
    from vr_pipeline.prompts.config import PromptFilteringParameters, SplitParameters


@dataclass
class CheckedFiles:
    """The result of the checks.

    Args:
        findings: errors and warnings.
        summary: one line on each part of the environment: the user's, or the default with its limits.
        filtering: the block prompt_filtering for the environment; None: the configured one.
        training: settings of dpo_training for the environment; None: the configured ones.
    """

    findings: Findings = field(default_factory=Findings)
    summary: list[str] = field(default_factory=list)
    filtering: dict[str, Any] | None = None
    training: dict[str, Any] | None = None


def configuration(project: Path, env: str | None) -> Any:
    """Return the configuration of conf/<env> over conf/base: a mapping with 'catalog' and 'parameters'."""
    from vr_pipeline.project.configuration import LOADER_ARGUMENTS, SteadyConfigLoader

    return SteadyConfigLoader(str(project / "conf"), env=env or "base", **LOADER_ARGUMENTS)


def check_files(project: Path, base_env: str | None, files: OwnFiles) -> CheckedFiles:
    """Check all given files, and describe the environment for them."""
    settings = configuration(project, base_env)["parameters"]
    result = CheckedFiles()
    vocabulary = demo_limits(project, settings)
    lines = {
        "prompts": f"{_default_of(base_env)}",
        "clips and preferences": f"{_default_of(base_env)}",
        "checklist": f"{_default_of(base_env)}",
    }
    missing = [(option, path) for option, path in files.named() if not path.exists()]
    for option, path in missing:
        result.findings.error("it does not exist", f"correct the path given with {option}", path)
    files = files.without([path for _, path in missing])
    if files.prompts is not None:
        lines["prompts"] = _check_prompts(
            result,
            files.prompts,
            settings,
            base_env,
            vocabulary,
            prompt_column=files.prompt_options.get("prompt_column"),
            row_a_clip=files.to_annotate,
            images=files.images,
        )
        takes_images = family_of(settings["generator"]["family"]).takes_image
        if takes_images != (files.images is not None):
            result.findings.error(
                "the environment's generator makes clips from images, and no folder of images is given"
                if takes_images
                else "a folder of images is given, and the environment's generator makes clips from text alone",
                "give --images together with --base-env of an image-to-video model, such as wan_i2v, or neither",
                files.prompts,
            )
    if files.preferences is not None and files.videos is not None:
        options = dict(files.preference_options)
        options.setdefault("criterion", "Overall")
        found = checks.check_preferences(files.preferences, files.videos, **options)
        result.findings += found.findings
        lines["clips and preferences"] = (
            f"yours: {files.preferences} ({found.pairs} pairs of {found.clips} clips, {found.prompts} prompts)"
        )
    if files.to_annotate and files.prompts is not None and files.videos is not None:
        clips = checks.check_given_clips(files.prompts, files.videos, **files.prompt_options)
        result.findings += clips.findings
        lines["clips and preferences"] = (
            f"yours: {files.videos} ({clips.clips} clips of {clips.prompts} prompts, {clips.pairs} pairs to compare)"
        )
    if files.generators:
        named = [name for name, one in settings["preference_generators"]["generators"].items() if one is not None]
        parts = [f"clips of {', '.join(named)}, which preference_generation makes"] if named else []
        for name, folder in files.made_by.items():
            table = files.prompts_of(name)
            if table is not None:
                column = files.prompt_options.get("prompt_column") if table == files.prompts else None
                given = checks.check_given_clips(table, folder, alone=False, prompt_column=column)
                result.findings += given.findings
                parts.append(f"yours of {name}: {folder} ({given.clips} clips of {given.prompts} prompts)")
        if len(named) + len(files.made_by) < 2:
            result.findings.warning(
                "comparisons need clips of two generators, but fewer are named",
                "add one to preference_generators in the environment's parameters, or a folder with --made-by",
            )
        lines["clips and preferences"] = "; ".join(parts) or "none yet"
    if files.checklist is not None:
        checked = checks.check_checklist(files.checklist)
        result.findings += checked.findings
        if checked.checklist is not None:
            questions, dimensions = len(checked.checklist.questions), len(checked.checklist.dimensions)
            lines["checklist"] = f"yours: {files.checklist} ({questions} questions in {dimensions} dimensions)"
    generator, judge = settings["generator"], ChecklistJudgeParameters.model_validate(settings["judge"])
    lines["generator"] = f"{generator['family']} ({generator['path']}){_limits(vocabulary is not None, 'words')}"
    world = _world_of_judge(project, judge.path)
    lines["judge"] = f"{judge.family} ({judge.path}){_limits(world is not None, 'clips')}"
    if world is not None and (files.videos is not None or files.checklist is not None):
        result.findings.warning(
            f"the judge is the demo's, which knows only {world}: its answers about other clips or to other questions "
            "are meaningless",
            "set judge in the environment's parameters (docs/judges.md), or use --base-env",
        )
    width = max(len(name) for name in lines)
    result.summary = [f"  {name.ljust(width)}  {text}" for name, text in lines.items()]
    return result


def _check_prompts(
    result: CheckedFiles,
    path: Path,
    settings: dict[str, Any],
    base_env: str | None,
    vocabulary: set[str] | None,
    *,
    prompt_column: str | None,
    row_a_clip: bool,
    images: Path | None,
) -> str:
    from vr_pipeline.prompts.config import PromptFilteringParameters

    known = _knows(vocabulary, _prompts_of(path, prompt_column))
    configured = PromptFilteringParameters.model_validate(settings["prompt_filtering"])
    # The demo's thresholds are only for its own prompts, which differ in single words.
    parameters = configured if known or base_env is not None else PromptFilteringParameters()
    found = checks.check_prompts(path, parameters, prompt_column=prompt_column, row_a_clip=row_a_clip, images=images)
    result.findings += found.findings
    result.filtering = _filtering_block(
        settings["prompt_filtering"], configured, parameters, found.split or parameters.split
    )
    if not known and vocabulary is not None and found.prompts:
        result.findings.warning(
            "the generator is the demo's, which knows only the words of its own prompts: its clips for yours are "
            "meaningless",
            "filter your prompts with it, and use --base-env cogvideox, wan or image to make clips",
            path,
        )
    if found.splits is None:
        return f"yours: {path} ({len(found.prompts)} prompts)"
    validation = settings["dpo_training"].get("validation")
    if validation is None:
        result.training = {"validation": None}
    elif not any(found.splits.get(split) for split in validation["splits"]):
        if base_env is None:
            result.training = {"validation": None}
        result.findings.warning(
            "there are no validation prompts, so no checkpoint can be selected: each policy has the weights of the "
            "last step",
            "add prompts" + ("" if base_env is None else ", or set dpo_training.validation to null in the environment"),
            path,
        )
    kept = sum(found.splits.values())
    parts = ", ".join(f"{count} {name}" for name, count in found.splits.items())
    return f"yours: {path} ({len(found.prompts)} prompts, {kept} pass the filter: {parts})"


def _filtering_block(
    written: dict[str, Any],
    configured: PromptFilteringParameters,
    wanted: PromptFilteringParameters,
    split: SplitParameters,
) -> dict[str, Any] | None:
    """Return the block with the wanted settings; None if the configured ones are the same."""
    if wanted == configured and split == configured.split:
        return None
    # Without the language model, which is the base environment's.
    kept = {name: value for name, value in written.items() if name != "language_model"}
    block = {**kept, "split": split.model_dump(mode="json")}
    if wanted != configured:
        block["rouge"] = {"threshold": wanted.rouge.threshold}
        block["semantic"] = {"threshold": wanted.semantic.threshold}
    return block


def next_steps(env: str, files: OwnFiles) -> list[str]:
    """Return the next commands, as lines."""
    steps = []
    if files.prompts is not None:
        steps.append((f"kedro run --env={env} --pipeline=prompt_filtering", "filter your prompts"))
    if files.generators:
        steps[-1:] = [
            (f"kedro run --env={env} --pipelines=prompt_filtering,preference_generation", "filter prompts, make clips")
        ]
    if files.to_annotate or files.generators:
        steps.append((f"kedro annotate --env={env}", "compare the clips in the browser, two at a time"))
    if files.videos is not None or files.generators:
        steps.append((f"kedro run --env={env} --to-outputs=reward_agreement", "judge the clips, learn the weights"))
    steps.append((f"kedro run --env={env}", "everything, up to the trained policies and the report"))
    width = max(len(command) for command, _ in steps)
    return ["Next:", *(f"  {command.ljust(width)}  {what}" for command, what in steps)]


def check_loads(project: Path, env: str) -> None:
    """Load the environment as a run would.

    Raises:
        InputError: its files contradict each other, for instance some written by hand.
    """
    loader = configuration(project, env)
    try:
        for kind in ("catalog", "parameters"):
            loader[kind]
    except ValueError as error:
        raise InputError(
            f"the files of conf/{env} contradict each other: {error}",
            remedy="remove duplicate entries, or the folder, and try again",
            file=project / "conf" / env,
        ) from error


def _prompts_of(path: Path, prompt_column: str | None) -> list[str]:
    try:
        table = read_prompts(path, prompt_column=prompt_column)
    except InputError:
        return []
    return table.loc[table["problem"] == "", "prompt"].tolist()


def _knows(vocabulary: set[str] | None, prompts: list[str]) -> bool:
    return bool(prompts) and vocabulary is not None and all(set(prompt.split()) <= vocabulary for prompt in prompts)


def demo_limits(project: Path, settings: dict[str, Any]) -> set[str] | None:
    """Return the words that the demo's generator knows; None for any other generator."""
    generator = settings["generator"]
    path = project / str(generator["path"]) / "tokenizer" / "tokenizer.json"
    if generator["family"] not in {"micro_world", "micro_wan"} or not path.is_file():
        return None
    return set(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"])


def _world_of_judge(project: Path, judge: str) -> str | None:
    """Return the world that a demonstration judge knows; None for other judges."""
    path = project / judge / "judge.json"
    if not path.is_file():
        return None
    world = json.loads(path.read_text(encoding="utf-8")).get("world")
    return str(world) if world else None


def _limits(demo: bool, what: str) -> str:
    return f"; the demo's, knows only its own {what}" if demo else ""


def _default_of(base_env: str | None) -> str:
    return f"as in conf/{base_env}" if base_env else "the demo's (simulated data)"
