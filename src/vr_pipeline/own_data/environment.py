"""Write the environment conf/<name> for users' files: the differences from conf/base, with comments."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import write_text

_RAW = {"kedro-viz": {"layer": "raw"}}
DEMO_NOTE = (
    "The models are the demo's tiny ones, which know only the micro-world: for other prompts and clips these figures "
    "are meaningless. Set other models in the parameters, and another evaluation.report.note."
)
"""The report's note in an environment with the demo's models."""

NO_ORACLE = {
    name.lower(): {"type": f"vr_pipeline.datasets.oracle.{name}Dataset", "filepath": None, "metadata": _RAW}
    for name in ("Oracle", "Auditor")
}
"""Catalog entries without oracle and auditor: the embedded ones know only the embedded checklist and prompts."""
RESERVED = ("base", "local", "checklists", "templates", "real_models")


@dataclass(frozen=True)
class OwnFiles:
    """A user's files; None for the default.

    Args:
        preference_options: further options of the catalog entry, such as format, labels and columns.
        prompt_options: the same for the prompts, such as prompt_column.
        images: folder of the first frames that the column image of the prompts names.
        generators: whether clips of preference_generation are compared.
        made_by: further clips to compare, by the generator's name.
    """

    prompts: Path | None = None
    videos: Path | None = None
    preferences: Path | None = None
    checklist: Path | None = None
    preference_options: Mapping[str, Any] = field(default_factory=dict)
    prompt_options: Mapping[str, Any] = field(default_factory=dict)
    images: Path | None = None
    generators: bool = False
    made_by: Mapping[str, Path] = field(default_factory=dict)

    @property
    def to_annotate(self) -> bool:
        """Whether there are clips with prompts but without preferences."""
        return self.videos is not None and self.prompts is not None and self.preferences is None

    def prompts_of(self, name: str) -> Path | None:
        """Return the table with the prompts of a generator's clips: in its folder, else the prompts."""
        own = self.made_by[name] / "prompts.csv"
        return own if own.is_file() else self.prompts

    def named(self) -> list[tuple[str, Path]]:
        """Return the given files, each with its option."""
        named = [
            ("--prompts", self.prompts),
            ("--videos", self.videos),
            ("--preferences", self.preferences),
            ("--checklist", self.checklist),
            ("--images", self.images),
            *(("--made-by", folder) for folder in self.made_by.values()),
        ]
        return [(option, path) for option, path in named if path is not None]

    def without(self, paths: Sequence[Path]) -> OwnFiles:
        """Return a copy without some of the files."""
        gone: dict[str, Any] = {option.removeprefix("--"): None for option, path in self.named() if path in paths}
        gone.pop("made-by", None)
        return replace(self, **gone, made_by={name: path for name, path in self.made_by.items() if path not in paths})


def check_name(project: Path, env: str, base_env: str | None, *, overwrite: bool) -> None:
    """Check the names of the new environment and its base.

    Raises:
        InputError: a name is invalid, reserved, unknown or already used.
    """
    folder = project / "conf" / env
    if not env.replace("_", "").replace("-", "").isalnum() or env in RESERVED or env == base_env:
        raise InputError(
            f"'{env}' cannot be the name of your environment",
            remedy=f"use letters, digits, hyphens and underscores, and none of {', '.join(RESERVED)}",
            field="--env",
        )
    if base_env is not None and (base_env in RESERVED or not (project / "conf" / base_env).is_dir()):
        known = sorted(path.name for path in (project / "conf").iterdir() if (path / "globals.yml").is_file())
        raise InputError(
            f"there is no environment '{base_env}' to start from",
            remedy=f"choose among {', '.join(name for name in known if name not in RESERVED)}",
            field="--base-env",
        )
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise InputError(
            f"the environment conf/{env} exists already",
            remedy="choose another name with --env, or replace it with --overwrite",
            field="--env",
        )


def copy_files(project: Path, env: str, files: OwnFiles) -> OwnFiles:
    """Copy the user's files to data/01_raw/<env> and return their new paths."""
    target = project / "data" / "01_raw" / env
    target.mkdir(parents=True, exist_ok=True)

    def copied(path: Path | None) -> Path | None:
        if path is None or path.resolve() == (target / path.name).resolve():
            return path
        return Path(shutil.copy2(path, target / path.name))

    def copied_clips(folder: Path, name: str) -> Path:
        from vr_pipeline.datasets.clips import ClipFolder

        if folder.resolve() != (target / name).resolve():
            for file, path in ClipFolder(folder).items():
                (target / name / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target / name / file)
            if (folder / "prompts.csv").is_file():
                shutil.copy2(folder / "prompts.csv", target / name / "prompts.csv")
        return target / name

    return replace(
        files,
        prompts=copied(files.prompts),
        videos=None if files.videos is None else copied_clips(files.videos, "videos"),
        images=None if files.images is None else copied_clips(files.images, "images"),
        made_by={name: copied_clips(folder, name) for name, folder in files.made_by.items()},
        preferences=copied(files.preferences),
        checklist=copied(files.checklist),
    )


def write_environment(
    project: Path,
    env: str,
    base_env: str | None,
    files: OwnFiles,
    *,
    filtering: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
    title: str,
) -> list[Path]:
    """Write conf/<env>; existing files of the same names are replaced.

    Args:
        project: its folder.
        env: name of the environment.
        base_env: environment that it extends, None for conf/base.
        files: existing files for the catalog.
        filtering: the block prompt_filtering for the prompts; None: the configured one.
        training: settings of dpo_training for the prompts; None: the configured ones.
        title: heading of the report page.

    Returns:
        the written files.
    """
    settings = {"extends": base_env} if base_env else {}
    settings["data"] = f"data/{env}"
    if files.checklist is not None:
        settings["checklist"] = relative(files.checklist, project)
    parameters: dict[str, Any] = {"prompt_filtering": dict(filtering)} if filtering is not None else {}
    # Not as ${globals:data}, which `dvc exp run --set-param` cannot resolve.
    models = f"data/{env}/06_models"
    validation: dict[str, Any] = {"folder": f"{models}/validation"}
    if base_env is None:
        validation["hold_outs"] = {"oracle": None}
    folders = {"checkpoint_folder": f"{models}/checkpoints", "validation": validation}
    parameters["dpo_training"] = folders | dict(training or {})
    if base_env is None:  # an environment for real data sets these and a title
        trained = {"judge": "judge", "reward_model": "videoreward", "unified_reward_model": "unifiedreward"}
        parameters |= {block: {"trained": f"{models}/{name}"} for block, name in trained.items()}
        parameters["evaluation"] = {"report": {"title": title, "note": DEMO_NOTE}}
    return write_files(project, env, base_env, settings, _catalog(project, files, env, base_env), parameters)


def write_files(
    project: Path,
    env: str,
    base_env: str | None,
    settings: Mapping[str, Any],
    catalog: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> list[Path]:
    """Write those of globals.yml, catalog.yml and parameters.yml that have content; return them."""
    contents = {
        "globals.yml": (
            f"Results are in the folder 'data'. Everything else is as in conf/{base_env or 'base'}.",
            settings,
        ),
        "catalog.yml": ("Your own files. Paths are relative to the project.", catalog),
        "parameters.yml": ("Settings for your files.", parameters),
    }
    written = []
    for name, (head, content) in contents.items():
        if content:
            written.append(project / "conf" / env / name)
            write_text(written[-1], _with_head(head, content))
    return written


def relative(path: Path, project: Path) -> str:
    """Return the path for a catalog: relative to the project, or absolute outside of it."""
    plain = Path(os.path.normpath(path.absolute()))
    return plain.relative_to(project).as_posix() if plain.is_relative_to(project) else plain.as_posix()


def _catalog(project: Path, files: OwnFiles, env: str, base_env: str | None) -> dict[str, Any]:
    raw = _RAW
    entries: dict[str, Any] = {}
    if files.prompts is not None:
        entries["raw_prompts"] = {
            "type": "vr_pipeline.datasets.prompts.PromptFileDataset",
            "filepath": relative(files.prompts, project),
            **files.prompt_options,
            **({} if files.images is None else {"image_folder": relative(files.images, project)}),
            "metadata": raw,
        }
    if files.videos is not None:
        entries |= _compared_clips(project, files, files.videos, env, raw)
    elif files.generators:
        entries |= _clips_of_generators(project, files, env, raw)
    if base_env is None:
        entries |= NO_ORACLE
    return entries


def _clips_of_generators(project: Path, files: OwnFiles, env: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return catalog entries of the clips of several generators, and of their future preferences."""
    from vr_pipeline.annotation.offer import GENERATORS, journal_path

    kind, schemas = "vr_pipeline.datasets.generator_clips", "vr_pipeline.schemas"
    given = {}
    for name, folder in files.made_by.items():
        table = files.prompts_of(name)
        assert table is not None
        options = files.prompt_options if table == files.prompts else {}
        given[name] = {"filepath": relative(table, project), "videos": {"path": relative(folder, project)}, **options}
    clips = {"path": f"data/{env}/03_primary/generator_videos", **({"given": given} if given else {})}
    return {
        "human_preferences": {
            "type": "vr_pipeline.datasets.preferences.PreferenceDataset",
            "filepath": relative(journal_path(project, env, GENERATORS), project),
            "format": "annotations",
            "validator": f"{schemas}.HumanPreferences",
            "metadata": metadata,
        },
        "preference_clips": {
            "type": f"{kind}.GeneratorClipsDataset",
            **clips,
            "validator": f"{schemas}.PreferenceClips",
            "metadata": metadata,
        },
        "preference_videos": {"type": f"{kind}.GeneratorVideosDataset", **clips, "metadata": metadata},
    }


def _compared_clips(
    project: Path, files: OwnFiles, folder: Path, env: str, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return catalog entries of clips and preferences: the given file, or the journal of ``kedro annotate``."""
    from vr_pipeline.annotation.offer import CLIPS, journal_path

    kind, schemas = "vr_pipeline.datasets.preferences", "vr_pipeline.schemas"
    videos = {"path": relative(folder, project)}
    if files.preferences is not None:
        source = {"filepath": relative(files.preferences, project), **files.preference_options, "videos": videos}
        clips = {"type": f"{kind}.PreferenceClipsDataset", **source}
    else:
        assert files.prompts is not None
        source = {
            "filepath": relative(journal_path(project, env, CLIPS), project),
            "format": "annotations",
            "videos": videos,
        }
        clips = {
            "type": f"{kind}.GivenClipsDataset",
            "filepath": relative(files.prompts, project),
            **files.prompt_options,
            "videos": videos,
        }
    return {
        "human_preferences": {
            "type": f"{kind}.PreferenceDataset",
            **source,
            "validator": f"{schemas}.HumanPreferences",
            "metadata": metadata,
        },
        "preference_clips": {**clips, "validator": f"{schemas}.PreferenceClips", "metadata": metadata},
        "preference_videos": {"type": "vr_pipeline.datasets.clips.ClipFolderDataset", **videos, "metadata": metadata},
    }


def _with_head(head: str, content: Mapping[str, Any]) -> str:
    import yaml

    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    body = yaml.dump(dict(content), Dumper=NoAliases, sort_keys=False, allow_unicode=True, width=100)
    return f"# {head}\n{body}"
