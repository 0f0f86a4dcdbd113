"""The command ``kedro import-reward``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vr_pipeline.commands.options import EXISTING_FILE, print_notes
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo


@click.command(name="import-reward")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    default=Path("data/06_models/imported_reward"),
    show_default=True,
    help="Folder to write; an existing VideoReward is replaced.",
)
@click.option(
    "--base",
    metavar="FOLDER|NAME",
    help="Base model, for its config.json (and for its weights, where the checkpoint is an adapter): a folder, or a "
    "name on the hub [default: the model that model_config.json names].",
)
@click.option("--revision", metavar="COMMIT", help="Commit of a base model on the hub.")
@click.option("--step", type=click.IntRange(0), help="Number of the checkpoint [default: the highest].")
@click.option(
    "--template",
    type=EXISTING_FILE,
    help="Text file: the template that the checkpoint was trained with, after the clip, with its special tokens and "
    "{text_prompt} [default: this project's template].",
)
@click.option(
    "--calibration",
    type=EXISTING_FILE,
    help="JSON file with mean and deviation of each dimension [default: those in model_config.json].",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Precision of the weights that are written; merging rounds to it.",
)
def import_reward(folder: Path, target: Path, **given: Any) -> None:
    """Convert a public VideoReward checkpoint.

    The result is a reward of this project. FOLDER contains model_config.json and checkpoint-<step>. A missing or
    unknown key or another shape is an error. See docs/videoreward.md.
    """
    with plain_errors():
        from vr_pipeline.rewards.videoreward.public_checkpoint import ImportOptions, files_of, import_checkpoint
        from vr_pipeline.rewards.videoreward.public_weights import is_pickled

        options = ImportOptions(**given)
        for file in files_of(folder, options.step):
            if is_pickled(file):
                echo(
                    f"{file.name} is a pickle, a format that can contain programs. The checkpoint is published in no "
                    "other format, so it is read once with weights_only, which runs no code, and saved as safetensors."
                )
        done = import_checkpoint(folder, target, options)
        names = ", ".join(f"{file.parent.name}/{file.name}" for file in done.files)
        echo(f"{done.weights} weights of {names} are in {target}.")
        notes = []
        if done.own_wording:
            notes.append(
                "the questions use this project's template. The scores equal the checkpoint's only with the template "
                "it was trained with: give it with --template."
            )
        if done.calibration is None:
            notes.append(
                "the checkpoint has no normalisation, so scores are the head's output; --calibration adds one."
            )
        print_notes(notes)
        echo(f'To use it: kedro score CLIP --prompt "..." --reward {target}')
