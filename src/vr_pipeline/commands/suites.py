"""The commands ``kedro export-clips`` and ``kedro import-scores``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vr_pipeline.commands.options import ENVIRONMENT, EXISTING_FILE
from vr_pipeline.evaluation.suites.names import SUITES
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import aligned, echo

if TYPE_CHECKING:
    import pandas as pd

    from vr_pipeline.generators.policy import Policy


@click.command(name="export-clips")
@ENVIRONMENT
@click.option(
    "--suite",
    type=click.Choice(list(SUITES)),
    required=True,
    help="Suite that determines file names and numbers of clips.",
)
@click.option("--prompts", "list_of_prompts", type=EXISTING_FILE, required=True, help="The suite's list of prompts.")
@click.option("--policy", default="original", show_default=True, metavar="NAME", help="A recipe, or a policy's folder.")
@click.option("--variant", metavar="COLUMN", help="Column with the wording for the generator.")
@click.option("--texts", type=EXISTING_FILE, help="File with the wordings for the generator, one line per prompt.")
@click.option("--dimension", "dimensions", multiple=True, help="Only prompts of this dimension; may be repeated.")
@click.option(
    "--seed", default=0, show_default=True, help="Base seed; with prompt and number it determines a clip's seed."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the export.")
def export_clips(env: str, list_of_prompts: Path, policy: str, out: Path, **options: Any) -> None:
    """Make the clips of a policy for a public suite.

    OUT/videos has the clips, under the names that the suite's scripts expect, OUT/manifest.json their seeds, rates and
    wordings. A stopped export resumes at the next clip. The suite's scripts measure the clips; kedro import-scores
    reads their results.
    """
    with plain_errors():
        from vr_pipeline.evaluation.suites.export import ITEMS, VIDEOS, plan_export, write_export
        from vr_pipeline.evaluation.suites.names import read_suite_prompts
        from vr_pipeline.generators.config import GeneratorParameters
        from vr_pipeline.items.filling import fill_folder
        from vr_pipeline.project.folder import project_context

        suite = SUITES[options["suite"]]
        variant, texts = options["variant"], options["texts"]
        if variant and texts:
            raise click.UsageError("Options '--variant' and '--texts' cannot be used together.")
        prompts = read_suite_prompts(
            list_of_prompts, suite, variant=variant, texts=texts, dimensions=options["dimensions"]
        )
        context = project_context(env)
        generator = GeneratorParameters.model_validate(context.params["generator"])
        changed = _policy(context, policy)
        plan = plan_export(prompts, generator, changed, seed=options["seed"])
        echo(f"{len(plan.items)} clips of {len(prompts)} prompts for {suite.name}, policy {policy}.")
        made = fill_folder(out / ITEMS, {"type": "video", "codec": "libx264", "crf": 10}, plan)
        described = {
            "policy": policy,
            "policy_identity": None if changed is None else changed.identity,
            "generator": generator.model_dump(mode="json"),
            "base_seed": options["seed"],
            "variant": variant or (texts.name if texts else None),
        }
        clips = write_export(made, out, suite, described)
        failed = int((clips["status"] == "failed").sum())
        echo(
            f"{len(clips) - failed} clips in {out / VIDEOS}; {failed} could not be made (see {out / 'manifest.json'})."
        )


def _policy(context: Any, name: str) -> Policy | None:
    """Load a policy by the name of its recipe or from its folder; None for the original generator."""
    from vr_pipeline.datasets.policy import PolicyDataset
    from vr_pipeline.errors import InputError
    from vr_pipeline.generators.policy import ORIGINAL

    if name == ORIGINAL:
        return None
    if Path(name).is_dir():
        return PolicyDataset(path=name).load()
    dataset = f"policy_{name}"
    if dataset not in context.catalog or not context.catalog.exists(dataset):
        raise InputError(
            f"there is no policy '{name}'",
            remedy="use original, a trained recipe, or the folder of a policy",
            field="--policy",
        )
    policy: Policy = context.catalog.load(dataset)
    return policy


@click.command(name="import-scores")
@click.argument("file", type=EXISTING_FILE)
@ENVIRONMENT
@click.option("--suite", default="suite", show_default=True, help="Name of the scores in tables.")
@click.option("--policy", metavar="NAME", help="Policy that made the clips, for a suite's own results.")
@click.option(
    "--manifest", type=click.Path(exists=True, path_type=Path), help="Manifest of kedro export-clips, or its folder."
)
@click.option("--baseline", default="original", show_default=True, help="Policy with which others are compared.")
def import_scores(file: Path, env: str, suite: str, policy: str | None, manifest: Path | None, baseline: str) -> None:
    """Read a suite's scores into the evaluation.

    Shows them with intervals by prompt. FILE is a suite's *_eval_results.json (give --policy or --manifest), or a
    table with the columns policy, prompt, dimension and score. Scores that are read again replace the earlier ones.
    The page is 08_reporting/suite_scores.html in the data folder; the next evaluation shows the scores too.
    """
    with plain_errors():
        from vr_pipeline.datasets.tables import OptionalTableDataset
        from vr_pipeline.evaluation.report.suite_page import suite_page
        from vr_pipeline.evaluation.suites.results import merged, read_manifest_of, read_score_table, read_suite_results
        from vr_pipeline.evaluation.suites.table import suite_table
        from vr_pipeline.project.folder import project_context
        from vr_pipeline.storage.atomic import write_text

        known = read_manifest_of(manifest) if manifest is not None else None
        name = policy or (str(known["policy"]) if known else None)
        if name is not None:
            called = str(known["suite"]) if known and suite == "suite" else suite
            scores = read_suite_results(file, suite=called, policy=name, manifest=known)
        else:
            scores = read_score_table(file, suite=suite)
        context = project_context(env)
        data = Path(context.project_path) / context.config_loader["globals"]["data"]
        entry = context.config_loader["catalog"]["suite_scores"]
        place = entry["filepath"] or f"{context.config_loader['globals']['data']}/07_model_output/suite_scores.parquet"
        dataset = OptionalTableDataset(filepath=str(Path(context.project_path) / place), missing_ok=True)
        scores = merged(dataset.load(), scores)
        dataset.save(scores)
        page = data / "08_reporting" / "suite_scores.html"
        write_text(page, suite_page(scores, baseline))
        _print(suite_table(scores, baseline))
        echo(f"Written to {place}; the page is {page}.")
        if entry["filepath"] is None:
            echo(
                f"To show them in the evaluation's report, set suite_scores: {{filepath: {place}}} in the catalog of "
                f"conf/{env}, with the type from conf/base."
            )


def _print(table: pd.DataFrame) -> None:
    import pandas as pd

    def shown(row: dict[Any, Any], value: str, low: str, high: str) -> str:
        if pd.isna(row[value]):
            return "-"
        ends = "" if pd.isna(row[low]) else f" [{row[low]:.4f}, {row[high]:.4f}]"
        return f"{row[value]:.4f}{ends}"

    rows = [("suite", "dimension", "policy", "mean", "gain", "prompts", "clips")]
    for row in table.to_dict("records"):
        mean = shown(row, "mean", "ci_low", "ci_high") if row["clips"] else "missing"
        numbers = (mean, shown(row, "gain", "gain_low", "gain_high"), str(row["prompts"]), str(row["clips"]))
        rows.append((row["suite"], row["dimension"], row["policy"], *numbers))
    echo("\n".join(aligned(rows, left=range(len(rows[0])))))
