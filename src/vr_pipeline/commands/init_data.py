"""The command ``kedro init-data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo

if TYPE_CHECKING:
    from vr_pipeline.own_data.findings import Finding
    from vr_pipeline.own_data.given_pairs import PairFiles

_FILE = click.Path(path_type=Path)


@click.command(name="init-data")
@click.option("--prompts", type=_FILE, metavar="FILE", help="Prompts: txt, csv, tsv, jsonl or parquet.")
@click.option("--videos", type=_FILE, metavar="FOLDER", help="Clips (or images) to compare, or compared already.")
@click.option("--preferences", type=_FILE, metavar="FILE", help="Preferences: prompt, clips a and b, label.")
@click.option("--generators", is_flag=True, help="Compare clips of several generators: those of preference_generators.")
@click.option(
    "--made-by",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Further clips for --generators, with their generator; named after their prompts or in FOLDER/prompts.csv.",
)
@click.option("--images", type=_FILE, metavar="FOLDER", help="First frames of clips, which --prompts names as 'image'.")
@click.option("--checklist", type=_FILE, metavar="FILE", help="Your yes/no questions, as YAML.")
@click.option(
    "--pairs",
    type=_FILE,
    metavar="FILE",
    help="Existing pairs of winner and loser to train on: a table, a list of VideoDPO or UnifiedReward, Pick-a-Pic, a "
    "journal of kedro annotate, or a folder with 'w' and 'l'. With --videos if names are relative to another folder.",
)
@click.option("--pairs-format", metavar="NAME", help="Format of --pairs, if it is not recognised.")
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "reject"]),
    help="For clips of --pairs whose aspect ratio is not the generator's: crop, pad with black, or reject "
    "[default: crop].",
)
@click.option(
    "--window",
    type=click.Choice(["first", "centre"]),
    help="For longer clips of --pairs: use the first or the middle frames [default: first].",
)
@click.option(
    "--too-short",
    type=click.Choice(["reject", "repeat_last"]),
    help="For clips of --pairs with too few frames: reject them, or repeat their last frame [default: reject].",
)
@click.option("--env", "-e", default="mydata", show_default=True, help="The environment to write: conf/<env>.")
@click.option("--base-env", metavar="NAME", help="Start from conf/NAME (cogvideox, wan, image...) instead of the demo.")
@click.option(
    "--preference-format", default="plain", show_default=True, help="Format of the preferences; see docs/rewards.md."
)
@click.option("--prompt-column", metavar="COLUMN", help="Column of --prompts with the prompts, if not 'prompt'.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Column of --preferences or --pairs that the format calls NAME.",
)
@click.option("--label", "labels", multiple=True, metavar="LABEL=MEANING", help="Meaning (a, b, tie) of a label.")
@click.option("--criterion", metavar="NAME", help="The label to read from a file with several.")
@click.option("--copy", "copy_in", is_flag=True, help="Copy the files to data/01_raw/<env>; else they stay in place.")
@click.option("--overwrite", is_flag=True, help="Overwrite the environment if it exists.")
@click.option("--check", "check_only", is_flag=True, help="Check the files and write nothing.")
def init_data(env: str, base_env: str | None, copy_in: bool, overwrite: bool, check_only: bool, **given: Any) -> None:
    """Check your files and write an environment for them.

    The environment is the folder conf/<env>. Give prompts, or videos with preferences, or both; a checklist with
    either. Videos with prompts only can be compared with kedro annotate; --generators compares clips of several
    generators. Pairs alone are for kedro run --pipeline=given_dpo, which needs no judge. All problems are reported
    together. See docs/your_own_data.md.
    """
    _check_options({name: bool(value) for name, value in given.items()})
    prompts, videos, preferences, pairs = (given[name] for name in ("prompts", "videos", "preferences", "pairs"))
    with plain_errors():
        from vr_pipeline.own_data.environment import OwnFiles, check_name, copy_files, write_environment
        from vr_pipeline.own_data.findings import UnusableFiles
        from vr_pipeline.own_data.given_pairs import PairFiles
        from vr_pipeline.own_data.plan import check_files, check_loads, next_steps
        from vr_pipeline.project.folder import project_folder

        project = project_folder()
        check_name(project, env, base_env, overwrite=overwrite or check_only)
        format = given["preference_format" if pairs is None else "pairs_format"]
        options = _preference_options(format, given["columns"], given["labels"], given["criterion"])
        if pairs is not None:
            own_fit = {"shape": given["fit"], "window": given["window"], "too_short": given["too_short"]}
            chosen_fit = {name: value for name, value in own_fit.items() if value is not None}
            of_pairs = PairFiles(pairs, videos, options, chosen_fit)
            _init_pairs(project, env, base_env, of_pairs, copy_in=copy_in, check=check_only)
            return
        column, images = given["prompt_column"], given["images"]
        prompt_options = {"prompt_column": column} if column is not None else {}
        makers = [one.partition("=") for one in given["made_by"]]
        named = _mapping(makers, "--made-by", "NAME=FOLDER, for example sora=clips")
        folders = {name: Path(folder) for name, folder in named.items()}
        compared = given["generators"] or bool(folders)
        files = OwnFiles(
            prompts, videos, preferences, given["checklist"], options, prompt_options, images, compared, folders
        )
        result = check_files(project, base_env, files)
        if result.findings.has_errors:
            raise UnusableFiles(result.findings)
        _print(result.findings)
        if check_only:
            echo("\n".join(["The files can be used; nothing was written.", *result.summary]))
            return
        if copy_in:
            files = copy_files(project, env, files)
        else:
            _warn_of_outside([path for _, path in files.named()], project)
        title = f"Evaluation on {env.replace('_', ' ')}"
        written = write_environment(
            project, env, base_env, files, filtering=result.filtering, training=result.training, title=title
        )
        check_loads(project, env)
        echo(f"conf/{env} is written ({', '.join(path.name for path in written)}).")
        echo("\n".join([*result.summary, "", *next_steps(env, files)]))


def _check_options(has: Mapping[str, bool]) -> None:
    """Reject options that do not go together; ``has`` tells which are given."""
    prompts, videos, preferences, checklist = (has[name] for name in ("prompts", "videos", "preferences", "checklist"))
    problem = ""
    if has["pairs"]:
        if prompts or preferences or checklist:
            problem = "--pairs makes a separate environment: combine it only with --videos."
    elif has["pairs_format"] or has["fit"] or has["window"] or has["too_short"]:
        problem = "--pairs-format, --fit, --window and --too-short need --pairs."
    elif (has["generators"] or has["made_by"]) and (videos or not prompts):
        problem = "--generators and --made-by need --prompts and replace --videos."
    elif preferences and not videos:
        problem = "--preferences needs --videos: preferences are about clips."
    elif videos and not preferences and not prompts:
        problem = "--videos needs --preferences, or --prompts with the prompt of each clip, to compare them with kedro "
        problem += "annotate."
    elif not prompts and not videos:
        problem = "Give --prompts, or --videos with --preferences or --prompts, or all three; or --pairs."
        problem += " A checklist alone is not enough." if checklist else ""
    elif has["prompt_column"] and not prompts:
        problem = "--prompt-column needs --prompts; for --preferences it is --column prompt=COLUMN."
    elif has["images"] and not prompts:
        problem = "--images needs --prompts, whose column 'image' names them."
    elif has["columns"] and not preferences:
        problem = "--column needs --preferences or --pairs; for --prompts it is --prompt-column COLUMN."
    if problem:
        raise click.UsageError(problem)


def _init_pairs(project: Path, env: str, base_env: str | None, files: PairFiles, *, copy_in: bool, check: bool) -> None:
    from vr_pipeline.own_data.findings import UnusableFiles
    from vr_pipeline.own_data.pairs_environment import check_pairs, next_steps, write_pairs_environment
    from vr_pipeline.own_data.plan import check_loads

    result, summary = check_pairs(project, base_env, files)
    if result.findings.has_errors:
        raise UnusableFiles(result.findings)
    _print(result.findings)
    if check:
        echo("\n".join(["The pairs can be used; nothing was written.", *summary]))
        return
    if result.scattered and not copy_in:
        echo(f"  The clips are in several folders and are copied to data/01_raw/{env}.", fg="yellow")
    elif not copy_in:
        _warn_of_outside([path for path in (files.pairs, result.folder) if path is not None], project)
    written = write_pairs_environment(project, env, base_env, files, result, copy=copy_in)
    check_loads(project, env)
    echo(f"conf/{env} is written ({', '.join(path.name for path in written)}).")
    echo("\n".join([*summary, "", *next_steps(env)]))


def _warn_of_outside(paths: Sequence[Path], project: Path) -> None:
    outside = [path for path in paths if not path.resolve().is_relative_to(project)]
    if outside:
        echo(
            f"  warning: {outside[0]} is outside the project, so the environment has its absolute path. "
            "Use --copy for an environment that also works elsewhere.",
            fg="yellow",
        )


def _preference_options(
    format: str | None, columns: tuple[str, ...], labels: tuple[str, ...], criterion: str | None
) -> dict[str, Any]:
    options: dict[str, Any] = {"format": format} if format is not None else {}
    if columns:
        named = [column.partition("=") for column in columns]
        options["columns"] = _mapping(named, "--column", "NAME=COLUMN, for example prompt=caption")
    if labels:
        # A label may contain '='; a meaning never does.
        pairs = [label.rpartition("=") for label in labels]
        options["labels"] = _mapping(pairs, "--label", "LABEL=MEANING, for example 1=a")
    if criterion is not None:
        options["criterion"] = criterion
    return options


def _mapping(parts: Sequence[tuple[str, str, str]], option: str, form: str) -> dict[str, str]:
    """Return key -> value of an option's values, already split at '='."""
    for part in parts:
        if not (part[0] and part[2]):
            raise click.BadParameter(f"'{''.join(part)}' is not {form}", param_hint=option)
    return {key: value for key, _, value in parts}


def _print(findings: list[Finding]) -> None:
    from vr_pipeline.own_data.findings import lines_of

    for line in lines_of(findings):
        echo(line, fg="yellow")
