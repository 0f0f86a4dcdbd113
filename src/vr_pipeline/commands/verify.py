"""The command ``kedro verify``."""

from __future__ import annotations

import click

from vr_pipeline.commands.options import AS_JSON, print_json
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo


@click.command(name="verify")
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("--env", "-e", default=None, help="Environment of the configuration.")
@click.option("--pipeline", "-p", default=None, metavar="NAME", help="The system [default: the environment's].")
@AS_JSON
def verify(datasets: tuple[str, ...], env: str | None, pipeline: str | None, as_json: bool) -> None:
    """Read every item of folders of items, and compare it with its recorded hash.

    A run checks size and times of items and reads only those that changed. This command finds what that misses, such
    as damage by a failing disk. The next run makes missing and damaged items again.

    DATASET is a folder of items (videos, answer_shards, latents ...); without it, all finished ones of the system. The
    exit code is 1 if an item is missing or damaged.
    """
    with plain_errors():
        from vr_pipeline.errors import InputError
        from vr_pipeline.items.folder import is_complete, verify_folder
        from vr_pipeline.items.formats import item_format
        from vr_pipeline.planning.opening import item_folders, open_project
        from vr_pipeline.project.folder import project_folder

        folders = item_folders(open_project(project_folder(), env, pipeline))
        if unknown := sorted(set(datasets) - set(folders)):
            raise InputError(
                f"'{unknown[0]}' is not a folder of items of this system",
                remedy=f"give some of {', '.join(sorted(folders))}",
            )
        found = {
            name: verify_folder(folder, item_format(stored_as))
            for name, (folder, stored_as) in folders.items()
            if is_complete(folder) and (not datasets or name in datasets)
        }
    if as_json:
        print_json({name: {"items": items, "damaged": damaged} for name, (items, damaged) in found.items()})
    else:
        for name, (items, damaged) in found.items():
            echo(f"{name}: {items:,} items, {len(damaged)} missing or damaged")
            for key, place in damaged.items():
                echo(f"  {key}: {place}")
        for name in sorted((set(datasets) or set(folders)) - set(found)):
            echo(f"{name}: not finished; the next run verifies what is there")
    if any(damaged for _, damaged in found.values()):
        raise SystemExit(1)
