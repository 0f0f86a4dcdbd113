"""The command ``kedro init-data``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo

if TYPE_CHECKING:
    from vr_pipeline.own_data.findings import Finding

_FILE = click.Path(path_type=Path)


@click.command(name="init-data")
@click.option("--prompts", type=_FILE, metavar="FILE", help="Prompts: txt, csv, tsv, jsonl or parquet.")
@click.option("--videos", type=_FILE, metavar="FOLDER", help="Clips (or images) that people compared, or will.")
@click.option("--preferences", type=_FILE, metavar="FILE", help="Who preferred which: prompt, clips a and b, label.")
@click.option("--checklist", type=_FILE, metavar="FILE", help="Your yes/no questions, as YAML.")
@click.option("--env", "-e", default="mydata", show_default=True, help="The environment to write: conf/<env>.")
@click.option(
    "--base-env", metavar="NAME", help="Start from conf/NAME (cogvideox, wan, image...) and not from the demo."
)
@click.option(
    "--preference-format",
    default="plain",
    show_default=True,
    help="Format of the preferences; see docs/rewards.md.",
)
@click.option("--prompt-column", metavar="COLUMN", help="Column of --prompts that holds them, if not 'prompt'.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Column of --preferences that holds what the format calls NAME.",
)
@click.option("--label", "labels", multiple=True, metavar="LABEL=MEANING", help="Meaning (a, b, tie) of a label.")
@click.option("--criterion", metavar="NAME", help="Which label of a file that has several.")
@click.option("--copy", "copy_in", is_flag=True, help="Copy the files to data/01_raw/<env>; else they stay in place.")
@click.option("--overwrite", is_flag=True, help="Write the environment anew if it exists.")
@click.option("--check", "check_only", is_flag=True, help="Check the files and write nothing.")
def init_data(  # one parameter for each option of the command
    prompts: Path | None,
    videos: Path | None,
    preferences: Path | None,
    checklist: Path | None,
    env: str,
    base_env: str | None,
    preference_format: str,
    prompt_column: str | None,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    criterion: str | None,
    copy_in: bool,
    overwrite: bool,
    check_only: bool,
) -> None:
    """Check your own files and write the environment conf/<env> that runs on them.

    Give prompts, or videos with preferences, or both; a checklist with either. Videos with prompts alone are clips to
    be compared by kedro annotate. Every problem is reported at once. See docs/your_own_data.md.
    """
    with plain_errors():
        from vr_pipeline.own_data.environment import OwnFiles, check_name, copy_files, write_environment
        from vr_pipeline.own_data.findings import UnusableFiles
        from vr_pipeline.own_data.plan import check_files, check_loads, next_steps
        from vr_pipeline.project.folder import project_folder

        _check_options(prompts, videos, preferences, checklist)
        if prompt_column is not None and prompts is None:
            raise click.UsageError("--prompt-column needs --prompts; for --preferences it is --column prompt=COLUMN.")
        if columns and preferences is None:
            raise click.UsageError("--column needs --preferences; for --prompts it is --prompt-column COLUMN.")
        project = project_folder()
        check_name(project, env, base_env, overwrite=overwrite or check_only)
        options = _preference_options(preference_format, columns, labels, criterion)
        prompt_options = {"prompt_column": prompt_column} if prompt_column is not None else {}
        files = OwnFiles(prompts, videos, preferences, checklist, options, prompt_options)
        result = check_files(project, base_env, files)
        if result.findings.has_errors:
            raise UnusableFiles(result.findings)
        _tell(result.findings)
        if check_only:
            echo("\n".join(["The files can be used; nothing was written.", *result.summary]))
            return
        outside = [path for _, path in files.named() if not path.resolve().is_relative_to(project)]
        if copy_in:
            files = copy_files(project, env, files)
        elif outside:
            echo(
                f"  warning: {outside[0]} lies outside the project and is named by its absolute path. "
                "Use --copy for an environment that works elsewhere too.",
                fg="yellow",
            )
        title = f"Evaluation on {env.replace('_', ' ')}"
        written = write_environment(
            project,
            env,
            base_env,
            files,
            filtering=result.filtering,
            training=result.training,
            title=title,
        )
        check_loads(project, env)
        echo(f"conf/{env} is written ({', '.join(path.name for path in written)}).")
        echo("\n".join([*result.summary, "", *next_steps(env, files)]))


def _check_options(prompts: Path | None, videos: Path | None, preferences: Path | None, checklist: Path | None) -> None:
    if preferences is not None and videos is None:
        raise click.UsageError("--preferences needs --videos: preferences are about clips.")
    if videos is not None and preferences is None and prompts is None:
        raise click.UsageError(
            "--videos needs --preferences, or --prompts that say what each clip was made for, to compare them by "
            "kedro annotate."
        )
    if prompts is None and videos is None:
        extra = " A checklist alone has nothing to be asked about." if checklist is not None else ""
        raise click.UsageError(f"Give --prompts, or --videos with --preferences or --prompts, or all three.{extra}")


def _preference_options(
    format: str, columns: tuple[str, ...], labels: tuple[str, ...], criterion: str | None
) -> dict[str, Any]:
    options: dict[str, Any] = {"format": format}
    if columns:
        named = [column.partition("=") for column in columns]
        options["columns"] = _mapping(named, "--column", "NAME=COLUMN, for example prompt=caption")
    if labels:
        # A label may hold the sign itself; a meaning never does.
        pairs = [label.rpartition("=") for label in labels]
        options["labels"] = _mapping(pairs, "--label", "LABEL=MEANING, for example 1=a")
    if criterion is not None:
        options["criterion"] = criterion
    return options


def _mapping(parts: Sequence[tuple[str, str, str]], option: str, form: str) -> dict[str, str]:
    """Key -> value of what was given to an option, already parted at '='."""
    for part in parts:
        if not (part[0] and part[2]):
            raise click.BadParameter(f"'{''.join(part)}' is not {form}", param_hint=option)
    return {key: value for key, _, value in parts}


def _tell(findings: list[Finding]) -> None:
    from vr_pipeline.own_data.findings import lines_of

    for line in lines_of(findings):
        echo(line, fg="yellow")
