"""An environment for a user's existing pairs: from files to conf/<name> and the pipeline given_dpo."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.own_data.environment import DEMO_NOTE, NO_ORACLE, relative, write_files
from vr_pipeline.own_data.given_pairs import CheckedPairs, PairFiles, check_given_pairs, pairs_lines
from vr_pipeline.own_data.plan import configuration, demo_limits
from vr_pipeline.pairs.config import GivenPairsParameters
from vr_pipeline.preferences.detection import detect_format
from vr_pipeline.preferences.embedded import write_embedded
from vr_pipeline.preferences.formats import FORMATS
from vr_pipeline.preferences.journal import read_study
from vr_pipeline.storage.tables import read_entries

PIPELINE = "given_dpo"
CLIPS, TABLE = "given_clips", "given_pairs.csv"
"""Names of copies in data/01_raw/<env>."""
_DATASETS = {
    "generated": "videos",
    "clips": "preference_videos",
    "preferences": "preference_videos",
    "policies": "evaluation_videos",
}
"""Source of a study of the annotation page -> dataset that has its clips."""


def check_pairs(project: Path, base_env: str | None, files: PairFiles) -> tuple[CheckedPairs, list[str]]:
    """Check pairs against the generator of an environment.

    Args:
        project: its folder.
        base_env: environment that is extended, None for conf/base.
        files: the user's files.

    Returns:
        the result, and one line on each part of the environment.
    """
    settings = configuration(project, base_env)["parameters"]
    generator = GeneratorParameters.model_validate(settings["generator"])
    given = settings.get("given_pairs") or {}
    parameters = GivenPairsParameters.model_validate({**given, "fit": {**given.get("fit", {}), **files.fit}})
    if not files.pairs.exists():
        missing = CheckedPairs()
        missing.findings.error("it does not exist", "correct the path given with --pairs", files.pairs)
        return missing, []
    if files.videos is None and (videos := _folder_of_journal(project, files)) is not None:
        files = replace(files, videos=videos)
    with tempfile.TemporaryDirectory() as aside:
        check = check_given_pairs(files, generator, parameters, project=project, unpacked=Path(aside))
    vocabulary, prompts = demo_limits(project, settings), [] if check.table is None else check.table["prompt"].tolist()
    if vocabulary is not None and any(set(prompt.split()) - vocabulary for prompt in prompts):
        check.findings.warning(
            "the generator is the demo's, which knows only the words of its own prompts: training it on yours is "
            "meaningless",
            "use --base-env cogvideox, wan or image",
            files.pairs,
        )
    size = f"{generator.num_frames} x {generator.height} x {generator.width}"
    check.reward_settings = ("type", *(settings.get("reward_model") or {}))
    lines = pairs_lines(check, files) | {
        "generator": f"{generator.family} ({generator.path}); {size} at {generator.fps:g} frames per second",
        "objective": str(settings["dpo_training"]["training"]["loss"]),
        "reward": "none: the report shows clips side by side, people compare them",
    }
    width = max(len(name) for name in lines)
    return check, [f"  {name.ljust(width)}  {text}" for name, text in lines.items()]


def _folder_of_journal(project: Path, files: PairFiles) -> Path | None:
    """Return the folder of the clips of a journal of this project's ``kedro annotate``; None for other files."""
    folder = files.pairs.resolve().parent
    if folder.parent != (project / "data" / "01_raw" / "annotations").resolve():
        return None
    try:
        if (files.options.get("format") or detect_format(files.pairs)) != "annotations":
            return None
        dataset = _DATASETS[read_study(files.pairs).source]
        path = configuration(project, folder.name)["catalog"][dataset]["path"]
    except (InputError, KeyError):
        return None  # the check reports what is wrong with the file
    return project / str(path)


def _raw(project: Path, env: str) -> Path:
    return project / "data" / "01_raw" / env


def write_pairs_environment(
    project: Path, env: str, base_env: str | None, files: PairFiles, check: CheckedPairs, *, copy: bool
) -> list[Path]:
    """Write conf/<env> for checked pairs; existing files of the same names are replaced.

    Args:
        project, env, base_env, files: as for :func:`check_pairs`.
        check: its result.
        copy: copy pairs and clips to data/01_raw/<env>; scattered clips are always copied.

    Returns:
        the written configuration files.
    """
    assert check.folder is not None
    options: dict[str, Any] = {**files.options, "format": check.format}
    pairs, folder = files.pairs, check.folder
    if check.embedded:
        folder = _unpack(project, env, files, check)
    if copy or check.scattered:
        pairs, folder = _copy(project, env, folder, check)
        options = {"format": "plain"}
    raw = {"kedro-viz": {"layer": "raw"}}
    videos = {"path": relative(folder, project)}
    catalog: dict[str, Any] = {
        "given_pairs": {
            "type": "vr_pipeline.datasets.preferences.PreferenceDataset",
            "filepath": relative(pairs, project),
            **options,
            "videos": videos,
            "validator": "vr_pipeline.schemas.HumanPreferences",
            "metadata": raw,
        },
        "given_videos": {"type": "vr_pipeline.datasets.clips.ClipFolderDataset", **videos, "metadata": raw},
    }
    parameters = _parameters(env, files.fit, check.reward_settings)
    if base_env is None:
        catalog |= NO_ORACLE
        parameters["evaluation"]["report"]["note"] = DEMO_NOTE
    settings = {"extends": base_env} if base_env else {}
    settings |= {"data": f"data/{env}", "pipeline": PIPELINE}
    return write_files(project, env, base_env, settings, catalog, parameters)


def _parameters(env: str, fit: Mapping[str, str], reward_settings: Sequence[str]) -> dict[str, Any]:
    # Not as ${globals:data}, which `dvc exp run --set-param` cannot resolve.
    training: dict[str, Any] = {"checkpoint_folder": f"data/{env}/06_models/checkpoints", "validation": None}
    title = f"Preference training on given pairs: {env.replace('_', ' ')}"
    parameters: dict[str, Any] = {"given_pairs": {"fit": dict(fit)}} if fit else {}
    # The base environment's reward must not be used. Its settings are removed too, so that users can set another type.
    parameters["reward_model"] = dict.fromkeys(reward_settings)
    return parameters | {"dpo_training": training, "evaluation": {"report": {"title": title, "note": ""}}}


def _unpack(project: Path, env: str, files: PairFiles, check: CheckedPairs) -> Path:
    """Write the clips within the file to separate files; return their folder."""
    write_embedded(read_entries(files.pairs), FORMATS[check.format].embedded, _raw(project, env) / CLIPS)
    return _raw(project, env) / CLIPS


def _copy(project: Path, env: str, folder: Path, check: CheckedPairs) -> tuple[Path, Path]:
    """Copy the clips of the pairs, and write the pairs as a plain table; return both paths."""
    from vr_pipeline.datasets.preferences import PreferenceDataset

    assert check.table is not None
    target = _raw(project, env) / CLIPS
    names = {name for side in "ab" for name in check.table[f"video_path_{side}"]}
    for name in sorted(names):
        source, copied = folder / name, target / name
        if source.is_file() and source.resolve() != copied.resolve():
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copied)
    table = _raw(project, env) / TABLE
    table.parent.mkdir(parents=True, exist_ok=True)
    PreferenceDataset(filepath=str(table)).save(check.table)
    return table, target


def next_steps(env: str) -> list[str]:
    """Return the next commands, as lines."""
    steps = (
        (f"kedro run --env={env} --pipeline={PIPELINE}", "train on the pairs, compare original and policy"),
        (f"kedro annotate --env={env} --policies original,given", "then: compare their clips blind, in the browser"),
    )
    width = max(len(command) for command, _ in steps)
    return ["Next:", *(f"  {command.ljust(width)}  {what}" for command, what in steps)]
