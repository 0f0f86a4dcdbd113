"""Writes the environment conf/<name> for own files: what differs from conf/base, with comments for people."""

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
NO_ORACLE = {"type": "vr_pipeline.datasets.oracle.OracleDataset", "filepath": None, "metadata": _RAW}
"""The embedded oracle knows the embedded checklist and prompts alone."""
RESERVED = ("base", "local", "checklists", "real_models")


@dataclass(frozen=True)
class OwnFiles:
    """Files that the user supplied; None where the default stays.

    Args:
        preference_options: further options of the catalog entry, such as format, labels and columns.
        prompt_options: the same for the prompts, such as prompt_column.
    """

    prompts: Path | None = None
    videos: Path | None = None
    preferences: Path | None = None
    checklist: Path | None = None
    preference_options: Mapping[str, Any] = field(default_factory=dict)
    prompt_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def to_annotate(self) -> bool:
        """Clips for prompts are there, and nobody has compared them yet."""
        return self.videos is not None and self.prompts is not None and self.preferences is None

    def named(self) -> list[tuple[str, Path]]:
        """Return the files that are given, each with its option."""
        named = [
            ("--prompts", self.prompts),
            ("--videos", self.videos),
            ("--preferences", self.preferences),
            ("--checklist", self.checklist),
        ]
        return [(option, path) for option, path in named if path is not None]

    def without(self, paths: Sequence[Path]) -> OwnFiles:
        """Return the same without some of the files."""
        gone: dict[str, Any] = {option.removeprefix("--"): None for option, path in self.named() if path in paths}
        return replace(self, **gone)


def check_name(project: Path, env: str, base_env: str | None, *, overwrite: bool) -> None:
    """Refuse names that would break something. Raises :class:`InputError`."""
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
            remedy="choose another name with --env, or write it anew with --overwrite",
            field="--env",
        )


def copy_files(project: Path, env: str, files: OwnFiles) -> OwnFiles:
    """Copy the user's files below data/01_raw/<env>, which the environment then names."""
    target = project / "data" / "01_raw" / env
    target.mkdir(parents=True, exist_ok=True)

    def copied(path: Path | None) -> Path | None:
        if path is None or path.resolve() == (target / path.name).resolve():
            return path
        return Path(shutil.copy2(path, target / path.name))

    videos = files.videos
    if videos is not None and videos.resolve() != (target / "videos").resolve():
        from vr_pipeline.datasets.clips import ClipFolder

        for name, path in ClipFolder(videos).items():
            (target / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / "videos" / name)
        videos = target / "videos"
    return replace(
        files,
        prompts=copied(files.prompts),
        videos=videos,
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
        files: what to name in the catalog, as paths that exist.
        filtering: the block prompt_filtering that suits the prompts; None leaves the configured one.
        training: settings of dpo_training that suit them; None leaves the configured ones.
        title: heading of the report page.

    Returns:
        the files that were written.
    """
    settings = {"extends": base_env} if base_env else {}
    settings["data"] = f"data/{env}"
    if files.checklist is not None:
        settings["checklist"] = relative(files.checklist, project)
    parameters: dict[str, Any] = {"prompt_filtering": dict(filtering)} if filtering is not None else {}
    # Written out: `dvc exp run --set-param` reads this file and knows nothing of ${globals:data}.
    models = f"data/{env}/06_models"
    folders = {"checkpoint_folder": f"{models}/checkpoints", "validation": {"folder": f"{models}/validation"}}
    parameters["dpo_training"] = folders | dict(training or {})
    if base_env is None:  # an environment for real data has a title of its own
        parameters["evaluation"] = {"report": {"title": title, "note": ""}}
    return write_files(project, env, base_env, settings, _catalog(project, files, env, base_env), parameters)


def write_files(
    project: Path,
    env: str,
    base_env: str | None,
    settings: Mapping[str, Any],
    catalog: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> list[Path]:
    """Write globals.yml, catalog.yml and parameters.yml of an environment, those that have content; return them."""
    contents = {
        "globals.yml": (
            f"Results below 'data'. What is not named here is that of conf/{base_env or 'base'}.",
            settings,
        ),
        "catalog.yml": ("Your own files. Paths are relative to the project.", catalog),
        "parameters.yml": ("Settings that suit your files.", parameters),
    }
    written = []
    for name, (head, content) in contents.items():
        if content:
            written.append(project / "conf" / env / name)
            write_text(written[-1], _with_head(head, content))
    return written


def relative(path: Path, project: Path) -> str:
    """Return the path for a catalog: relative to the project if it lies in it, absolute otherwise."""
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
            "metadata": raw,
        }
    if files.videos is not None:
        entries |= _compared_clips(project, files, files.videos, env, raw)
    if base_env is None:
        entries["oracle"] = NO_ORACLE
    return entries


def _compared_clips(
    project: Path, files: OwnFiles, folder: Path, env: str, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Entries of clips and preferences; without a file of preferences, what ``kedro annotate`` will collect."""
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
